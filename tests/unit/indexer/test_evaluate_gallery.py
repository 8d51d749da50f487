"""The benchmark against a gallery: queries of one set, neighbours from an index version."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.benchmark.evaluate import Served, evaluate
from indexer.build import build_index
from indexer.items import ItemTable
from indexer.stores.faiss import FaissStore
from indexer.versions import IndexDirectory
from model.dataset import read_items
from model.embedder import Embedder
from model.errors import EvaluationSetInvalid
from tests.support.photos import KOREAN, car_photo
from tests.support.servers import run_cli
from tests.unit.indexer.sets import MemoryPhoto


@pytest.fixture
def served(gallery: Path, fake_embedder: Embedder, tmp_path: Path) -> Iterator[Served]:
    """The session's gallery: three classes (kinds 0, 1, 2) of four shots."""
    index = IndexDirectory(tmp_path / "index")
    directory = index.path_of(build_index(gallery, index, fake_embedder).version)
    items = ItemTable(directory / "items.sqlite")
    yield Served(FaissStore.read(directory / "index.faiss", 64, 12), items, directory.name)
    items.close()


def test_every_query_finds_its_nearest_photo_of_the_gallery(served: Served, fake_embedder: Embedder) -> None:
    queries = [
        MemoryPhoto("known car", "car 1", car_photo(1, 90)),
        MemoryPhoto("very file", KOREAN, car_photo(0, 2)),
        MemoryPhoto("wrong name", "car 2", car_photo(1, 0)),
        MemoryPhoto("no such class", "car 9", car_photo(2, 91)),
    ]
    evaluation = evaluate(queries, fake_embedder, gallery=served)
    report = evaluation.report
    assert (report.mode, report.top1, report.correct, report.total) == ("gallery", 0.5, 2, 4)
    assert report.unanswerable == ["no such class"]
    assert report.identical_in_gallery == 2
    assert report.classes == 4
    assert report.versions["index"] == served.version
    nearest = dict(evaluation.predictions)
    assert nearest["very file"] == f"{KOREAN}/2.jpg"
    assert nearest["wrong name"] == "car 1/0.jpg"
    assert nearest["known car"].startswith("car 1/")
    assert nearest["no such class"].startswith("car 2/")
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["identical_in_gallery"] == 2


def test_147_a_query_may_be_its_own_file_in_the_gallery(served: Served, fake_embedder: Embedder, gallery: Path) -> None:
    items = read_items(gallery).items
    evaluation = evaluate(items, fake_embedder, gallery=served)
    assert evaluation.predictions == [(item.id, item.id) for item in items]
    assert (evaluation.report.top1, evaluation.report.identical_in_gallery) == (1.0, 12)
    assert evaluation.report.recall_at == {"1": 1.0, "5": 1.0, "10": 1.0}


def test_photos_of_the_gallery_without_a_class_are_no_answers(fake_embedder: Embedder, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name, kind, shot in (("flat.jpg", 1, 90), ("car 1/0.jpg", 1, 0), ("car 2/0.jpg", 2, 0)):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(car_photo(kind, shot))
    index = IndexDirectory(tmp_path / "index")
    directory = index.path_of(build_index(photos, index, fake_embedder).version)
    with closing(ItemTable(directory / "items.sqlite")) as items:
        against = Served(FaissStore.read(directory / "index.faiss", 64, 3), items, directory.name)
        queries = [MemoryPhoto("1", "car 1", car_photo(1, 90)), MemoryPhoto("2", "car 1", car_photo(2, 1))]
        evaluation = evaluate(queries, fake_embedder, gallery=against)
    assert evaluation.predictions == [("1", "car 1/0.jpg"), ("2", "car 2/0.jpg")]
    assert (evaluation.report.top1, evaluation.report.map_at_r) == (0.5, 0.5)
    assert [(one.label, one.nearest_label) for one in evaluation.report.most_confused] == [("car 1", "car 2")]


def test_leave_one_out_reports_nothing_about_a_gallery(fake_embedder: Embedder, gallery: Path) -> None:
    report = evaluate(read_items(gallery).items, fake_embedder).report
    assert report.identical_in_gallery is None
    assert "index" not in report.versions


def test_one_photo_is_enough_and_none_is_not(served: Served, fake_embedder: Embedder) -> None:
    assert evaluate([MemoryPhoto("0", "car 1", car_photo(1, 90))], fake_embedder, gallery=served).report.total == 1
    with pytest.raises(EvaluationSetInvalid, match=r"has 0 usable photos of 0 classes \(1 skipped\)"):
        evaluate([MemoryPhoto("0", "car 1")], fake_embedder, gallery=served)


def test_a_set_with_no_class_of_the_gallery_is_refused(served: Served, fake_embedder: Embedder) -> None:
    with pytest.raises(EvaluationSetInvalid, match="none of its classes is in the gallery"):
        evaluate([MemoryPhoto("0", "nobody's", car_photo(1, 90))], fake_embedder, gallery=served)


@pytest.mark.slow
def test_the_command_line_takes_gallery_and_model_from_the_index(real_index: IndexDirectory, gallery: Path) -> None:
    answer = run_cli("evaluate", "--data", gallery, "--index", real_index.root, "--mode", "gallery", "--json")
    assert answer.returncode == 0
    report = json.loads(answer.stdout)
    assert (report["mode"], report["top1"], report["identical_in_gallery"]) == ("gallery", 1.0, 12)
    assert report["versions"]["index"] == real_index.current()
