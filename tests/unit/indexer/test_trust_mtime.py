"""--trust-mtime: files with the size, time of change and inode that they had when they were read are not read again."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from indexer.build import BuildResult, build_index
from indexer.items import ItemTable
from indexer.manifest import ITEMS_NAME, MANIFEST_NAME
from indexer.versions import IndexDirectory
from model.dataset import Item
from model.embedder import Embedder
from model.errors import IndexInvalid
from model.storage import FileRecord, read_json
from tests.unit.indexer.sets import items_of, write_photos

NAMES = ("a/0.jpg", "a/1.jpg", "b/0.jpg")
HOUR_NS = 3600 * 10**9

Build = Callable[..., tuple[BuildResult, list[str]]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos that changed last an hour ago."""
    folder = write_photos(tmp_path / "photos", NAMES)
    for name in NAMES:
        age(folder / name)
    return folder


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return IndexDirectory(tmp_path / "index")


@pytest.fixture
def build(photos: Path, index: IndexDirectory, fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Builds, and tells which photos were read."""
    read: list[str] = []
    whole = Item.read

    def reading(item: Item) -> bytes:
        read.append(item.id)
        return whole(item)

    monkeypatch.setattr(Item, "read", reading)

    def built(gallery: Path = photos, trust_mtime: bool = True) -> tuple[BuildResult, list[str]]:
        read.clear()
        result = build_index(gallery, index, fake_embedder, trust_mtime=trust_mtime, allow_removals=True)
        return result, sorted(read)

    return built


def age(path: Path, by_ns: int = HOUR_NS) -> None:
    """Sets the time of change to some time ago, an hour by default."""
    os.utime(path, ns=(0, time.time_ns() - by_ns))


def swap_bytes(path: Path) -> None:
    """Other content of the same size in the same file: its last two bytes change places."""
    content = path.read_bytes()
    path.write_bytes(content[:-2] + content[:-3:-1])


def test_photos_that_have_not_changed_are_not_read(build: Build, index: IndexDirectory) -> None:
    assert build()[1] == list(NAMES)
    again, read = build()
    assert (read, again.changed, again.reused) == ([], False, 3)
    assert build(trust_mtime=False)[1] == list(NAMES)
    assert items_of(index) == {"a/0.jpg": "a", "a/1.jpg": "a", "b/0.jpg": "b"}


def test_only_what_is_new_is_read(build: Build, photos: Path) -> None:
    build(trust_mtime=False)  # every build notes what the next may trust
    write_photos(photos, ["b/1.jpg"])
    added, read = build()
    assert (read, added.embedded, added.reused) == (["b/1.jpg"], 1, 3)


def test_a_touched_file_is_read_and_not_embedded(build: Build, photos: Path) -> None:
    build()
    age(photos / "a/1.jpg", by_ns=HOUR_NS // 2)
    touched, read = build()
    assert (read, touched.changed, touched.embedded) == (["a/1.jpg"], False, 0)


def test_a_file_replaced_by_one_of_the_same_size_is_read(build: Build, photos: Path) -> None:
    build()
    path = photos / "a/1.jpg"
    before = path.stat()
    swap_bytes(path)
    assert path.stat().st_size == before.st_size
    replaced, read = build()
    assert (read, replaced.changed, replaced.embedded) == (["a/1.jpg"], True, 1)


def test_a_restored_time_hides_a_change_inside_a_file_and_not_another_file(build: Build, photos: Path) -> None:
    build()
    path = photos / "a/1.jpg"
    old = path.stat().st_mtime_ns
    swap_bytes(path)
    os.utime(path, ns=(0, old))
    assert build()[1] == []  # what is trusted: the same file, of the same size, of the same time
    assert build(trust_mtime=False)[0].embedded == 1

    other = shutil.copyfile(path, photos.parent / "other.jpg")
    swap_bytes(other)
    os.utime(other, ns=(0, old))
    other.rename(path)
    assert build()[1] == ["a/1.jpg"]


def test_a_moved_file_is_read_and_not_embedded(build: Build, photos: Path, index: IndexDirectory) -> None:
    build()
    (photos / "a/1.jpg").rename(photos / "b/1.jpg")
    moved, read = build()
    assert (read, moved.embedded, moved.removed) == (["b/1.jpg"], 0, 1)
    (photos / "b/1.jpg").replace(photos / "b/0.jpg")  # over another, which it is known from by its inode
    assert build()[1] == ["b/0.jpg"]
    assert len(items_of(index)) == 2


def test_a_file_that_changed_a_moment_ago_is_read_again(build: Build, photos: Path) -> None:
    age(photos / "a/1.jpg", by_ns=0)
    build()
    assert build()[1] == ["a/1.jpg"]


def test_a_copy_of_the_gallery_is_read(build: Build, photos: Path, tmp_path: Path) -> None:
    build()
    copy = Path(shutil.copytree(photos, tmp_path / "copy"))
    assert build(copy)[1] == list(NAMES)


def test_a_version_from_before_stamps_is_loaded_and_replaced_once(build: Build, index: IndexDirectory) -> None:
    first = build()[0].version
    without_stamps(index.path_of(first))
    assert index.verify(first).count == 3
    with closing(ItemTable(index.path_of(first) / ITEMS_NAME)) as table:
        assert [(item.id, item.stamp) for item in table.all()] == [(name, None) for name in NAMES]
    replaced, read = build()
    assert (read, replaced.changed, replaced.embedded) == (list(NAMES), True, 0)
    again, read = build()
    assert (read, again.changed) == ([], False)


def without_stamps(directory: Path) -> None:
    """Makes a version what an earlier release wrote."""
    with closing(sqlite3.connect(directory / ITEMS_NAME)) as database, database:
        database.execute("CREATE TABLE older AS SELECT row, id, class, sha256, path FROM items")
        database.execute("DROP TABLE items")
        database.execute("ALTER TABLE older RENAME TO items")
    manifest = read_json(directory / MANIFEST_NAME, IndexInvalid)
    manifest["files"][ITEMS_NAME] = asdict(FileRecord.of(directory / ITEMS_NAME))
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_a_gallery_on_another_disk_is_read_once(build: Build, photos: Path) -> None:
    build()
    for name in NAMES:
        other = Path(shutil.copy2(photos / name, photos.parent / "other.jpg"))
        other.replace(photos / name)
    assert build()[1] == list(NAMES)
    assert build()[1] == []


def test_a_gallery_whose_files_tell_nothing_to_trust_is_published_once(build: Build, photos: Path) -> None:
    for name in NAMES:
        age(photos / name, by_ns=-HOUR_NS)  # they may change again within this tick
    first, _ = build()
    again, read = build()
    assert (first.changed, again.changed, read) == (True, False, list(NAMES))
