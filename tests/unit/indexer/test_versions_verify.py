"""Damage: one wrong byte anywhere in a version or its model is found before anything is read from it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.build import build_index
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from model.errors import CarsearchError, IndexInvalid, IndexNotFound, ModelInvalid, ModelMismatch, VersionNotFound
from tests.conftest import write_fake_model
from tests.support.servers import run_cli
from tests.unit.indexer.sets import VERSION_FILES, write_photos

MODEL_FILES = ("card.json", "weights.safetensors", "golden.jpg")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> IndexDirectory:
    """One version of three photos; read only."""
    root = tmp_path_factory.mktemp("original")
    index = IndexDirectory(root / "index")
    build_index(write_photos(root / "photos", ["a/0.jpg", "a/1.jpg", "b/0.jpg"]), index, fake_embedder)
    return index


@pytest.fixture
def index(original: IndexDirectory, tmp_path: Path) -> IndexDirectory:
    """A copy of `original` to damage."""
    return IndexDirectory(Path(shutil.copytree(original.root, tmp_path / "index")))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", VERSION_FILES)
def test_damage_to_a_file_of_a_version_is_found(
    index: IndexDirectory, name: str, damage: Callable[[Path], None]
) -> None:
    damage(index.path_of(index.current()) / name)
    with pytest.raises(IndexInvalid, match=f"is damaged: {name} "):
        index.verify(index.current())


@pytest.mark.parametrize("damage", [truncate, empty, Path.unlink])
def test_damage_to_the_manifest_is_found(index: IndexDirectory, damage: Callable[[Path], None]) -> None:
    damage(index.path_of(index.current()) / "manifest.json")
    with pytest.raises(IndexInvalid, match=r"manifest\.json"):
        index.verify(index.current())


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", MODEL_FILES)
def test_damage_to_a_file_of_the_model_is_found(
    index: IndexDirectory, fake_embedder: Embedder, name: str, damage: Callable[[Path], None]
) -> None:
    damage(index.model_path(fake_embedder.model_sha256) / name)
    with pytest.raises(ModelInvalid):
        index.verify(index.current())


def test_no_flipped_bit_of_the_manifest_changes_what_is_checked(index: IndexDirectory) -> None:
    path = index.path_of(index.current()) / "manifest.json"
    whole, before = path.read_bytes(), index.verify(index.current())
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 7
        path.write_bytes(damaged)
        try:
            after = index.verify(before.id)
        except CarsearchError:
            continue
        assert (after.id, after.metric, after.files) == (before.id, before.metric, before.files)
        assert after.model_sha256 == before.model_sha256
        assert after.preprocessing_sha256 == before.preprocessing_sha256


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"schema_version": None},
        {"id": "20200101T000000.000000Z-00000000"},
        {"metric": "l2"},
        {"dim": "64"},
        {"count": None},
        {"gallery": []},
        {"model_sha256": 5},
        {"files": {}},
        {"files": []},
        {"files": {"index.faiss": 1}},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_foreign_manifest_is_refused(index: IndexDirectory, change: dict[str, Any]) -> None:
    path = index.path_of(index.current()) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(IndexInvalid):
        index.verify(index.current())


@pytest.mark.parametrize("field", ["schema_version", "id", "dim", "files", "gallery", "model_sha256"])
def test_a_manifest_that_lacks_a_field_is_refused(index: IndexDirectory, field: str) -> None:
    path = index.path_of(index.current()) / "manifest.json"
    value = json.loads(path.read_bytes())
    del value[field]
    path.write_text(json.dumps(value))
    with pytest.raises(IndexInvalid):
        index.verify(index.current())


def test_a_newer_schema_is_named(index: IndexDirectory) -> None:
    path = index.path_of(index.current()) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "schema_version": 2, "new": "field"}))
    with pytest.raises(IndexInvalid, match="has the schema 2; this version reads 1"):
        index.verify(index.current())


def test_a_version_without_its_model_is_refused(index: IndexDirectory, fake_embedder: Embedder) -> None:
    shutil.rmtree(index.model_path(fake_embedder.model_sha256))
    with pytest.raises(ModelInvalid):
        index.verify(index.current())


def test_another_model_in_the_place_of_its_own_is_refused(index: IndexDirectory, fake_embedder: Embedder) -> None:
    write_fake_model(index.model_path(fake_embedder.model_sha256), dim=16)
    with pytest.raises(ModelMismatch):
        index.verify(index.current())


def test_a_link_is_not_a_version(index: IndexDirectory) -> None:
    directory = index.path_of(index.current())
    moved = directory.rename(index.root / "elsewhere")
    directory.symlink_to(moved)
    with pytest.raises(IndexInvalid, match="is a link"):
        index.verify(index.current())


@pytest.mark.parametrize("content", [b"", b"\n", b"../../etc\n", b".hidden\n", b"/absolute", b"a/b"])
def test_a_current_that_names_no_version_is_refused(index: IndexDirectory, content: bytes) -> None:
    (index.root / CURRENT_NAME).write_bytes(content)
    with pytest.raises(IndexInvalid, match="does not name a version"):
        index.current()


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"20200101T000000.000000Z-00000000\n", b"nul\x00byte", b"x" * 500]
)
def test_a_current_that_names_nothing_there_is_refused(index: IndexDirectory, content: bytes) -> None:
    (index.root / CURRENT_NAME).write_bytes(content)
    with pytest.raises((VersionNotFound, IndexNotFound, IndexInvalid)):
        index.verify(index.current())


def test_the_command_line_verifies_every_version(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    first = index.current()
    build_index(write_photos(tmp_path / "photos", ["a/0.jpg"]), index, fake_embedder, allow_removals=True)
    good = run_cli("versions", "verify", "--index", index.root)
    assert (good.returncode, good.stdout.count("verified")) == (0, 2)
    flip(index.path_of(first) / "items.sqlite")
    bad = run_cli("versions", "verify", "--index", index.root)
    assert (bad.returncode, bad.stdout.count("verified")) == (1, 1)
    assert (
        bad.stderr == f"error: The index version {first} is damaged: items.sqlite does not have the recorded sha256.\n"
    )
