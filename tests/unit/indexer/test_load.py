"""Loading a version: what is read into memory, and that a version that cannot be loaded is never published."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build_index
from indexer.load import embedder_for, load_embedder
from indexer.manifest import INDEX_NAME, ITEMS_NAME, Manifest
from indexer.stores.faiss import FaissStore
from indexer.versions import IndexDirectory
from model.card import load_card
from model.embedder import Embedder
from model.errors import DimMismatch, IndexInvalid, ModelMismatch
from model.storage import FileRecord
from tests.conftest import write_fake_model
from tests.support.hostile import write_hostile_reader
from tests.support.old_release import of_an_earlier_release
from tests.support.servers import clean_environment
from tests.unit.indexer.sets import assert_clean, unit, write_photos
from tests.unit.test_layout import ROOT

NAMES = ["a/0.jpg", "a/1.jpg", "b/0.jpg"]


@pytest.fixture
def index(tmp_path: Path, fake_embedder: Embedder) -> IndexDirectory:
    """One version of three photos."""
    index = IndexDirectory(tmp_path / "index")
    build_index(write_photos(tmp_path / "photos", NAMES), index, fake_embedder)
    return index


def lose_an_item(directory: Path) -> None:
    with closing(sqlite3.connect(directory / ITEMS_NAME)) as database, database:
        database.execute("DELETE FROM items WHERE row = 2")


def other_dimensions(directory: Path) -> None:
    FaissStore.create(unit(np.eye(16))[:12]).write(directory / INDEX_NAME)


def no_unit_vectors(directory: Path) -> None:
    FaissStore.create(np.full((3, 64), 2, np.float32)).write(directory / INDEX_NAME)


DAMAGES = pytest.mark.parametrize(
    ("damage", "error", "sentence"),
    [
        (lose_an_item, IndexInvalid, "has 2 items for 3 vectors"),
        (other_dimensions, DimMismatch, "has 16 dimensions, its manifest says 64"),
        (no_unit_vectors, IndexInvalid, "holds rows that are not unit vectors"),
    ],
)


def test_contents_are_store_items_and_names(index: IndexDirectory) -> None:
    manifest = index.verify(index.current())
    contents = index.contents(manifest)
    assert (len(contents.store), len(contents.items), contents.names.at(2)) == (3, 3, ("b/0.jpg", "b"))
    contents.items.close()


@DAMAGES
def test_files_that_are_not_what_the_manifest_says_are_refused(
    index: IndexDirectory, damage: Callable[[Path], None], error: type[IndexInvalid], sentence: str
) -> None:
    manifest = index.manifest(index.current())
    damage(index.path_of(manifest.id))
    with pytest.raises(error, match=sentence):
        index.contents(manifest)


@DAMAGES
def test_a_version_that_cannot_be_loaded_is_not_published(
    index: IndexDirectory, damage: Callable[[Path], None], error: type[IndexInvalid], sentence: str
) -> None:
    current = index.current()
    bad = replace(index.manifest(current), id="29990101T000000.000000Z-bad")

    def write(directory: Path) -> Manifest:
        for name in bad.files:
            shutil.copy(index.path_of(current) / name, directory / name)
        damage(directory)
        return bad

    with index.lock(), pytest.raises(error, match=sentence):
        index.publish(bad.id, write)
    assert index.current() == current
    assert_clean(index)


def test_a_version_that_cannot_be_loaded_is_not_rolled_back_to(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    old = index.current()
    new = build_index(write_photos(tmp_path / "photos", ["c/0.jpg"]), index, fake_embedder).version
    directory = index.path_of(old)
    lose_an_item(directory)
    files = {name: FileRecord.of(directory / name) for name in index.manifest(old).files}
    text = (directory / "manifest.json").read_text()
    before = asdict(index.manifest(old).files[ITEMS_NAME])["sha256"]
    (directory / "manifest.json").write_text(text.replace(before, files[ITEMS_NAME].sha256))
    assert index.verify(old).files == files
    with pytest.raises(IndexInvalid, match="has 2 items for 3 vectors"):
        index.rollback()
    assert index.current() == new


def test_an_index_of_an_earlier_release_is_refused_with_the_command_that_builds_it_anew(index: IndexDirectory) -> None:
    of_an_earlier_release(index)
    sentence = rf"decoded photos in another way; build the index again: carsearch index GALLERY --index {index.root}"
    with pytest.raises(ModelMismatch, match=sentence):
        load_embedder(index, index.manifest(index.current()), "fake", None, None)
    with pytest.raises(ModelMismatch, match=sentence):
        index.switch(index.current())


def test_it_is_built_anew_with_the_model_of_that_name_that_ships_now(
    index: IndexDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_an_earlier_release(index)
    with pytest.raises(ModelMismatch, match=r"built with fake of an earlier release, .* carsearch export MODEL"):
        embedder_for(index, None, "fake")
    ships = write_fake_model(tmp_path / "ships" / "fake")
    monkeypatch.setattr("model.embedder.PRETRAINED", tmp_path / "ships")
    card = load_card(ships)
    replace(card, training={"labels": {"train": ["others"]}}).save(ships)
    with pytest.raises(ModelMismatch, match=r"carsearch export MODEL"):  # a user's, which has a name of ours
        embedder_for(index, None, "fake")
    card.save(ships)
    embedder = embedder_for(index, None, "fake")
    assert embedder.directory == tmp_path / "ships" / "fake"
    assert build_index(tmp_path / "photos", index, embedder).embedded == len(NAMES)
    with pytest.raises(ModelMismatch, match=r"decoded photos in another way"):
        index.rollback()
    assert load_embedder(index, index.manifest(index.current()), "fake", None, None).dim == 64


def test_a_damaged_version_is_built_anew_by_whoever_names_the_model(
    index: IndexDirectory, tmp_path: Path, fake_embedder: Embedder
) -> None:
    (index.path_of(index.current()) / "manifest.json").write_text("{")
    with pytest.raises(IndexInvalid, match=r"To build it anew, name the model: --model"):
        embedder_for(index, None, "fake")
    model = embedder_for(index, str(fake_embedder.directory), "fake")
    assert build_index(tmp_path / "photos", index, model).photos == len(NAMES)


BUILD = """
import sys
from pathlib import Path
from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.card import load_card
from model.embedder import Embedder
photos, index, model = sys.argv[1:]
build_index(Path(photos), IndexDirectory(Path(index)), Embedder.load(model, "fake"))
"""


def test_096_a_version_that_crashes_its_reader_ends_the_build_and_is_not_served(
    fake_embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, index = write_photos(tmp_path / "photos", NAMES), IndexDirectory(tmp_path / "index-crash")
    monkeypatch.setenv("PYTHONPATH", write_hostile_reader(tmp_path / "hostile"))
    command = [sys.executable, "-c", BUILD, str(photos), str(index.root), str(fake_embedder.directory)]
    ended = subprocess.run(command, env=clean_environment(), cwd=ROOT, stderr=subprocess.DEVNULL, check=False)
    assert ended.returncode == -signal.SIGSEGV
    assert len(index.versions()) == 1
    assert not (index.root / "CURRENT").exists()
    assert build_index(photos, index, fake_embedder, keep=1).photos == len(NAMES)
    assert_clean(index)
