"""`import carsearch`: the page docs/python.md as it is written, the types of its names, and what the import costs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import assert_type

import pytest

import carsearch
from indexer.benchmark.report import Evaluation
from indexer.build import BuildResult
from model.dataset import read_items
from model.embedder import Embedder
from service.engine import Engine, Hit
from service.notebook import Hits
from tests.support.photos import KOREAN, car_photo, write_gallery
from tests.unit.test_layout import ROOT

PAGE = ROOT / "docs" / "python.md"


def blocks() -> list[str]:
    """The page's Python blocks."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_page_s_examples_work_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gallery(tmp_path / "photos")
    (tmp_path / "photo.jpg").write_bytes(car_photo(1, 9))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert len(blocks()) == 8
    for block in blocks():
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102  # our own page
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "12 photos of 3 classes; 0 files cannot be used"
    assert re.fullmatch(r"1 car 1 car 1/\d\.jpg 0\.\d{4}", printed[1])
    assert re.fullmatch(r"car 1 0\.\d{2} 0\.\d+", printed[4])  # a drawing is no photo of a car
    assert re.fullmatch(r"\(9, 9\) (0\.\d{4}) \1", printed[5])
    assert printed[6].startswith("top-1 1.0000 = 12/12, ")
    assert printed[7] == "the class, by ten neighbours: 1.0000"
    assert printed[8] == "top-1 1.0000, 12 photos are in the gallery themselves"
    assert printed[9] == "file_unreadable nowhere.jpg: The file cannot be read: No such file or directory."
    assert printed[9] in blocks()[-1]
    kinds = [names[name] for name in ("from_bytes", "from_image", "from_pixels")]
    assert all(isinstance(found, list) and found[0].label == "car 1" for found in kinds)


def test_a_folder_becomes_an_index_that_is_searched_and_a_score(
    tmp_path: Path, gallery: Path, fake_model: Path
) -> None:
    embedder = carsearch.Embedder.load(fake_model, "fake")
    built = carsearch.build_index(str(gallery), str(tmp_path / "index"), embedder)
    index = carsearch.open_index(str(tmp_path / "index"), runtime="fake")
    hits = index.search(gallery / "car 1" / "2.jpg", k=2)
    evaluation = carsearch.evaluate(str(gallery), embedder)
    assert_type(built, BuildResult)
    assert_type(index, Engine)
    assert_type(hits, Hits)
    assert_type(hits[0], Hit)
    assert_type(evaluation, Evaluation)
    assert (built.photos, built.classes) == (12, 3)
    assert [(hit.rank, hit.id, hit.label) for hit in hits][:1] == [(1, "car 1/2.jpg", "car 1")]
    assert hits[0].score == pytest.approx(1)
    assert len(hits) == 2
    assert evaluation == carsearch.evaluate(read_items(gallery).items, embedder)


def test_a_search_gives_five_hits_and_may_be_restricted_to_classes(
    tmp_path: Path, gallery: Path, fake_embedder: Embedder
) -> None:
    version = carsearch.build_index(gallery, tmp_path / "index", fake_embedder).version
    index = carsearch.open_index(tmp_path / "index", version, runtime="fake")
    assert len(index.search(car_photo(1, 9))) == 5
    assert {hit.label for hit in index.search(car_photo(1, 9), classes=[KOREAN, "car 2"])} == {KOREAN, "car 2"}
    with pytest.raises(carsearch.CarsearchError, match="no class of that name"):
        index.search(car_photo(1, 9), classes=["spaceship"])


def test_what_cannot_be_used_in_a_folder_is_in_the_report(tmp_path: Path, fake_embedder: Embedder) -> None:
    photos = write_gallery(tmp_path / "photos", classes=2)
    (photos / "car 1" / "text.jpg").write_text("no photo")
    (photos / "loose.jpg").write_bytes(car_photo())
    report = carsearch.evaluate(photos, fake_embedder).report
    assert (report.total, {one.name for one in report.skipped}) == (8, {"car 1/text.jpg", "loose.jpg"})


def test_only_the_public_names_are_there() -> None:
    for name in carsearch.__all__:
        assert getattr(carsearch, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'carsearch' has no attribute 'train'"):
        _ = carsearch.train  # type: ignore[attr-defined]


def test_the_import_loads_nothing_that_takes_long() -> None:
    code = "import sys; before = set(sys.modules); import carsearch; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert imported.isdisjoint({"faiss", "fastapi", "model", "indexer", "service", "numpy", "openvino", "PIL", "torch"})
