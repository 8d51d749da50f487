"""What a version holds for decisions: fitted when it is built, read with it, and missing in old versions."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build_index
from indexer.calibration import SHIPPED
from indexer.decider import Decider
from indexer.load import Contents
from indexer.manifest import CALIBRATION_NAME, CLASS_STATISTICS_NAME, CLASSES_NAME, FOR_CHANGES, MANIFEST_NAME, Manifest
from indexer.stores.faiss import FaissStore
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import IndexInvalid
from model.storage import FileRecord
from tests.support.photos import KOREAN, car_photo


@pytest.fixture
def index(tmp_path: Path, gallery: Path, fake_embedder: Embedder) -> IndexDirectory:
    """One version of three classes of four photos."""
    index = IndexDirectory(tmp_path / "index")
    build_index(gallery, index, fake_embedder)
    return index


def contents_of(index: IndexDirectory) -> Contents:
    manifest = index.verify(index.current())
    return index.contents(manifest)


def without(index: IndexDirectory, names: set[str]) -> None:
    """The current version as an earlier release wrote it."""
    directory = index.path_of(index.current())
    manifest = json.loads((directory / MANIFEST_NAME).read_bytes())
    for name in names:
        (directory / name).unlink()
        del manifest["files"][name]
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest))


def rewrite(index: IndexDirectory, name: str, content: bytes) -> None:
    """Another file in the current version, which its manifest names."""
    directory = index.path_of(index.current())
    (directory / name).write_bytes(content)
    manifest = json.loads((directory / MANIFEST_NAME).read_bytes())
    manifest["files"][name] = asdict(FileRecord.of(directory / name))
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_a_photo_is_decided_by_the_version_that_was_built(index: IndexDirectory, fake_embedder: Embedder) -> None:
    contents = contents_of(index)
    decider = contents.decider
    assert decider is not None
    assert decider.calibration == SHIPPED  # twelve photos say too little
    assert list(decider.labels) == ["car 1", "car 2", KOREAN]
    photos = np.stack([fake_embedder.embed_photo(car_photo(kind, 77)) for kind in range(3)])
    decisions = decider.decide(photos, contents.store.search(photos, 10))
    made = [one for one in decisions if one is not None]
    assert [one.label for one in made] == [KOREAN, "car 1", "car 2"]
    assert [one.agreement for one in made] == [0.4] * 3  # all four photos of the class are among the ten nearest
    assert all(0.5 < one.probability < 1 for one in made)
    contents.items.close()


def test_a_gallery_with_enough_photos_gets_a_fit_of_its_own() -> None:
    random = np.random.default_rng(0)
    codes, labels = np.repeat(np.arange(30), 10), [f"class {number}" for number in range(30)]
    rows = random.normal(size=(30, 16)).repeat(10, axis=0) + 0.8 * random.normal(size=(300, 16))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    decider = Decider.of(FaissStore.create(unit), unit, codes, labels)
    assert decider is not None
    fitted = decider.calibration
    assert fitted.photos == 300
    assert fitted.top1 is not None
    assert fitted.auroc is not None
    assert 0.5 < fitted.top1 < 1
    assert fitted.auroc > 0.75


def test_a_photo_among_others_without_a_class_is_no_wrong_decision() -> None:
    random = np.random.default_rng(0)
    rows = np.eye(30).repeat(10, axis=0) + 0.02 * random.normal(size=(300, 30))
    rows[0] = -rows[0]  # far from its class
    rows = np.concatenate([rows, rows[:1].repeat(10, axis=0)])
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    codes = np.concatenate([np.repeat(np.arange(30), 10), np.full(10, -1)])
    decider = Decider.of(FaissStore.create(unit), unit, codes, [f"class {number}" for number in range(30)])
    assert decider is not None
    assert (decider.calibration.photos, decider.calibration.top1) == (299, 1.0)


def test_a_version_from_before_decisions_is_read_and_built_anew_though_no_photo_changed(
    index: IndexDirectory, gallery: Path, fake_embedder: Embedder
) -> None:
    without(index, FOR_CHANGES)
    old = contents_of(index)
    assert old.decider is None
    old.items.close()
    built = build_index(gallery, index, fake_embedder)
    assert (built.changed, built.embedded, built.reused) == (True, 0, 12)
    assert not build_index(gallery, index, fake_embedder).changed
    new = contents_of(index)
    assert new.decider is not None
    new.items.close()


def test_a_version_from_before_classes_took_in_changes_decides_without_them_and_is_built_anew(
    index: IndexDirectory, gallery: Path, fake_embedder: Embedder
) -> None:
    without(index, {CLASS_STATISTICS_NAME})
    old = contents_of(index)
    old.items.close()
    decider = old.decider
    assert decider is not None
    photo = fake_embedder.embed_photo(car_photo(5, 0))[None]
    assert decider.followed_by([*decider.labels, "neu"], np.array([3]), photo, [1]) is decider
    assert build_index(gallery, index, fake_embedder).changed
    new = contents_of(index)
    new.items.close()
    assert new.decider is not None
    assert new.decider.followed_by([*decider.labels, "neu"], np.array([3]), photo, [1]).labels[3] == "neu"


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (CLASSES_NAME, lambda content: content[:-4], "has not a row of numbers for each of 3 classes"),
        (CLASSES_NAME, lambda content: b"\xff" * len(content), "has not a row of numbers for each of 3 classes"),
        (CLASS_STATISTICS_NAME, lambda content: content[:-4], "is not of 3 classes and"),
        (CALIBRATION_NAME, lambda content: content.replace(b"5.76", b"NaN"), "lacks or misspells a field"),
        (CALIBRATION_NAME, lambda content: content.replace(b"5.76", b'"x"'), "lacks or misspells a field"),
        (CALIBRATION_NAME, lambda content: content.replace(b"[]", b"[0.5]"), "lacks or misspells a field"),
        (CALIBRATION_NAME, lambda _: b'{"weights": [1, 2, 3]}', "lacks or misspells a field"),
        (CALIBRATION_NAME, lambda _: b"[]", "calibration.json"),
        (CALIBRATION_NAME, lambda content: content.replace(b'"bias"', b'"bios"'), "lacks or misspells a field"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_refused(
    index: IndexDirectory, name: str, change: Callable[[bytes], bytes], sentence: str
) -> None:
    rewrite(index, name, change((index.path_of(index.current()) / name).read_bytes()))
    with pytest.raises(IndexInvalid, match=sentence):
        contents_of(index)


def test_a_version_with_half_of_the_files_is_incomplete(index: IndexDirectory) -> None:
    directory = index.path_of(index.current())
    manifest = json.loads((directory / MANIFEST_NAME).read_bytes())
    del manifest["files"][CLASSES_NAME]
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(IndexInvalid, match="is incomplete"):
        Manifest.read(directory)
