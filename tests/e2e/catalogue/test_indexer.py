"""Cases 112 to 126 of the catalogue that `tests/indexer` does not hold already: the disk, the names, the signals.

112 is `tests/unit/indexer/test_build_kill.py`; 117 and much of the others lies beside it: see docs/reliability.md.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.build import build_index
from indexer.embed import embed_photos
from indexer.items import GalleryItem, ItemTable, sha256_bytes
from indexer.manifest import INDEX_NAME, ITEMS_NAME, MANIFEST_NAME
from indexer.stores.faiss import FaissStore
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from model.errors import CarsearchError, EmbeddingInvalid
from model.runtimes.fake import FakeRuntime
from model.types import Pixels
from tests.support.hostile import write_hostile_reader
from tests.support.photos import KOREAN, car_photo
from tests.support.servers import clean_environment, run_cli
from tests.unit.indexer.power_loss import Disk
from tests.unit.indexer.sets import TINY, assert_clean, content_of, items_of, ordered_builds, write_photos

OLD = ["a/0.jpg", "a/1.jpg", "b/0.jpg"]
NEW = [*OLD, "b/1.jpg", "c/0.jpg"]
MOST_S = 5

Build = Callable[..., dict[str, Any]]


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return IndexDirectory(tmp_path / "disk" / "index")


def current_of(index: IndexDirectory) -> str | None:
    return index.current() if (index.root / CURRENT_NAME).exists() else None


def assert_whole(index: IndexDirectory, old: str | None, wanted: tuple[bytes, list[GalleryItem]]) -> None:
    """CURRENT names what it named before or the finished version, and every version that is there verifies."""
    for version in index.versions():
        index.verify(version)
    current = current_of(index)
    if current != old:
        assert current in index.versions()
        assert content_of(index) == wanted


# 113: the power goes


def build_on(disk: Disk, folder: Path, photos: Path, index: IndexDirectory, embedder: Embedder) -> None:
    with disk.watched(folder):
        build_index(photos, index, embedder, keep=1)


@pytest.mark.parametrize("kind", ["first build", "more photos"])
def test_113_whenever_the_power_goes_a_whole_version_is_left_and_the_next_run_finishes(
    kind: str, index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    index.root.parent.mkdir()
    if kind != "first build":
        build_index(write_photos(tmp_path / "old", OLD), index, fake_embedder)
    old, photos = current_of(index), write_photos(tmp_path / "photos", NEW)
    disk = Disk(index.root.parent)
    build_on(disk, tmp_path / "lost", photos, index, fake_embedder)
    wanted = content_of(index)
    assert len(disk.losses) > 20

    seen = set()
    for left in disk.losses:
        for path in left.values():
            found = IndexDirectory(path / index.root.name)
            assert_whole(found, old, wanted)
            seen.add(current_of(found) == old)
            build_index(photos, found, fake_embedder, keep=1)
            assert content_of(found) == wanted
            assert_clean(found)
            last = current_of(IndexDirectory(path / index.root.name))
            assert last is not None
    assert seen == {True, False}


def test_113_what_a_build_says_is_published_outlives_the_power(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    index.root.parent.mkdir()
    disk = Disk(index.root.parent)
    build_on(disk, tmp_path / "lost", write_photos(tmp_path / "photos", NEW), index, fake_embedder)
    for path in disk.losses[-1].values():
        left = IndexDirectory(path / index.root.name)
        assert left.verify(left.current()).id == index.current()


def test_113_without_syncs_the_power_would_leave_nothing(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    index.root.parent.mkdir()
    disk = Disk(index.root.parent, honest=False)
    build_on(disk, tmp_path / "lost", write_photos(tmp_path / "photos", NEW), index, fake_embedder)
    names, nothing = (IndexDirectory(disk.losses[-1][kind] / index.root.name) for kind in ("names", "nothing"))
    assert not nothing.root.exists()
    with pytest.raises(CarsearchError):
        names.verify(names.current())


# 114 to 116: disks that are full, broken, or not to be written


@pytest.fixture(scope="module")
def builder(fake_model: Path) -> Iterator[Build]:
    """Builds an index in a child process whose step `last` fails with the error `fails`."""
    with ordered_builds(fake_model) as order:

        def build(photos: Path, index: IndexDirectory, last: int, fails: int) -> dict[str, Any]:
            names = {"photos": str(photos), "index": str(index.root), "model": str(fake_model)}
            answer = order({**names, "keep": 1, "last": last, "fails": fails})
            assert answer["signal"] == 0
            return answer

        yield build


@pytest.mark.parametrize("fails", [errno.ENOSPC, errno.EIO], ids=["114 disk full", "115 disk broken"])
@pytest.mark.parametrize("kind", ["first build", "more photos"])
def test_an_error_at_any_step_publishes_nothing_by_halves_and_names_the_path(
    kind: str, fails: int, builder: Build, fake_embedder: Embedder, tmp_path: Path
) -> None:
    before, finished = IndexDirectory(tmp_path / "before"), IndexDirectory(tmp_path / "finished")
    before.root.mkdir()
    if kind != "first build":
        build_index(write_photos(tmp_path / "old", OLD), before, fake_embedder)
    photos = write_photos(tmp_path / "photos", NEW)
    build_index(photos, finished, fake_embedder)
    old, wanted = current_of(before), content_of(finished)
    steps = builder(photos, IndexDirectory(Path(shutil.copytree(before.root, tmp_path / "all"))), 0, fails)["steps"]
    assert {"fsync", "rename", "replace", "mkdir", "unlink", "sha256_file", "end"} <= set(steps)

    failed = 0
    for last in range(1, len(steps)):
        index = IndexDirectory(Path(shutil.copytree(before.root, tmp_path / "index")))
        told = builder(photos, index, last, fails)["error"]
        assert_whole(index, old, wanted)
        if told:
            failed += 1
            assert "\n" not in told
            # A copy's error names what is copied; reading back names the version and its file.
            assert str(index.root) in told or steps[last - 1] in ("copyfile", "sha256_file")
        else:  # what tidies up may fail without a word, and making what is there; what was damaged is made again
            assert steps[last - 1] in ("unlink", "rmdir", "mkdir", "sha256_file")
            assert current_of(index) != old
        result = build_index(photos, index, fake_embedder, keep=1)
        assert result.photos == len(NEW)
        assert content_of(index) == wanted
        assert_clean(index)
        shutil.rmtree(index.root)
    assert failed > 20


def test_116_an_index_that_may_not_be_written_is_named(
    index: IndexDirectory, real_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", write_hostile_reader(tmp_path / "unprivileged"))
    photos = write_photos(tmp_path / "photos", OLD)
    index.root.mkdir(parents=True)
    index.root.chmod(0o555)
    told = run_cli("index", photos, "--index", index.root, "--model", real_model)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.splitlines()[-1] == f"error: {index.root}/.lock: Permission denied."
    assert list(index.root.iterdir()) == []


# 118: somebody stops it


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -15), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_118_a_run_that_is_stopped_ends_soon_and_the_next_one_finishes(
    index: IndexDirectory, real_model: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    photos = write_photos(tmp_path / "photos", [f"{label}/{shot}.jpg" for label in "abcde" for shot in range(100)])
    arguments = ("index", photos, "--index", index.root, "--model", real_model)
    command = [sys.executable, "-m", "carsearch", *map(str, arguments)]
    with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (index.root / "work").exists():
            time.sleep(0.005)
        time.sleep(0.2)
        process.send_signal(number)
        stopped = time.monotonic()
        _, told = process.communicate(timeout=60)
        assert time.monotonic() - stopped <= MOST_S
        assert process.returncode == status, told
        assert b"Traceback" not in told
    assert index.versions() == []
    finished = run_cli(*arguments)
    assert "500 photos of 5 classes" in finished.stdout
    assert_clean(index)


# 120 to 124: what lies in a gallery


def test_120_equal_names_and_equal_contents_are_different_photos(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    photos = write_photos(tmp_path / "photos", ["a/0.jpg", "b/0.jpg", "b/deep/0.jpg"])
    shutil.copy(photos / "a/0.jpg", photos / "b/1.jpg")
    result = build_index(photos, index, fake_embedder)
    assert items_of(index) == {"a/0.jpg": "a", "b/0.jpg": "b", "b/1.jpg": "b", "b/deep/0.jpg": "b"}
    assert (result.embedded, result.reused, result.copies) == (3, 1, [["a/0.jpg", "b/1.jpg"]])


NAMES = [
    "with some spaces",
    " in front and behind ",
    "emoji \N{AUTOMOBILE}\N{VARIATION SELECTOR-16}",
    "-leading-dash",
    "trailing dot.",
    "x" * 255,
    KOREAN,
    "\u202edrawkcab",
]


def test_121_names_come_back_as_they_were(index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", [f"{name}/{name[:100]}" for name in NAMES])
    assert build_index(photos, index, fake_embedder).skipped == []
    table = ItemTable(index.path_of(index.current()) / ITEMS_NAME)
    found = {item.label: os.fsdecode(item.path) for item in table.all()}
    table.close()
    assert found == {name.strip(): f"{name}/{name[:100]}" for name in NAMES}


def test_121_folders_that_look_alike_are_one_class(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    forms = [unicodedata.normalize(form, KOREAN) for form in ("NFC", "NFD")]
    photos = write_photos(tmp_path / "photos", [f"{name}/{place}.jpg" for place, name in enumerate(forms)])
    result = build_index(photos, index, fake_embedder)
    assert (result.photos, result.classes) == (2, 1)
    assert set(items_of(index).values()) == {KOREAN}


def test_122_litter_is_passed_over_and_small_classes_are_classes(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    photos = write_photos(tmp_path / "photos", ["one/0.jpg", "two/deep/er/0.jpg", "two/1.jpg"])
    write_photos(photos, [".hidden/0.jpg", "one/.0.jpg", "one/Thumbs.db", "one/.DS_Store", "__MACOSX/one/0.jpg"])
    (photos / "empty").mkdir()
    result = build_index(photos, index, fake_embedder)
    assert (result.photos, result.classes, result.skipped) == (3, 2, [])


def test_122_a_class_for_every_photo(index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", [f"{number}/0.jpg" for number in range(300)])
    assert build_index(photos, index, fake_embedder).classes == 300


def test_123_what_is_no_file_is_neither_read_nor_waited_for(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    photos = write_photos(tmp_path / "photos", ["a/0.jpg", "a/folder.jpg/1.jpg"])
    os.mkfifo(photos / "a/pipe.jpg")
    (photos / "a/device.jpg").symlink_to("/dev/zero")
    (photos / "a/loop.jpg").symlink_to("loop.jpg")
    (photos / "a/round").symlink_to(photos)
    result = build_index(photos, index, fake_embedder)
    assert set(items_of(index)) == {"a/0.jpg", "a/folder.jpg/1.jpg"}
    assert {one.name: one.code for one in result.skipped} == {
        "a/loop.jpg": "file_unreadable",
        "a/round": "link_to_folder",
    }


@dataclass
class Changing:
    """A photo that is another one whenever it is read."""

    id: str
    label: str = "car"
    reads: int = 0

    def read(self) -> bytes:
        self.reads += 1
        return car_photo(self.reads, size=TINY)


def test_124_hash_and_embedding_are_of_one_reading(fake_embedder: Embedder) -> None:
    photos = [Changing(f"{number}.jpg") for number in range(3)]
    (batch,) = embed_photos(photos, fake_embedder)
    assert [photo.reads for photo in photos] == [1, 1, 1]
    for one in batch.embedded:
        assert one.sha256 == sha256_bytes(car_photo(1, size=TINY))
        assert np.array_equal(one.embedding, fake_embedder.embed_photo(car_photo(1, size=TINY)))


def test_124_files_that_change_and_go_while_they_are_indexed_are_whole_or_skipped(
    index: IndexDirectory, fake_embedder: Embedder, tmp_path: Path
) -> None:
    names = [f"a/{number}.jpg" for number in range(4 * FakeRuntime.batch)]
    photos = write_photos(tmp_path / "photos", names)
    states = [car_photo(kind, size=TINY) for kind in range(2)]
    known = {sha256_bytes(data): fake_embedder.embed_photo(data) for data in states}
    stop = threading.Event()

    def change() -> None:
        for turn in range(1_000_000):
            if stop.is_set():
                return
            path = photos / names[turn * 7 % len(names)]
            path.write_bytes(states[turn % 2])
            if turn % 5 == 0:
                path.unlink()

    changer = threading.Thread(target=change)
    changer.start()
    try:
        directory = index.path_of(build_index(photos, index, fake_embedder).version)
    finally:
        stop.set()
        changer.join()
    table = ItemTable(directory / ITEMS_NAME)
    rows = FaissStore.read(directory / INDEX_NAME, 64, len(table)).vectors(np.arange(len(table)))
    for item in table.all():
        if item.sha256 in known:
            assert np.array_equal(rows[item.row], known[item.sha256])
    assert {item.sha256 for item in table.all()} & set(known)
    table.close()


# 125 and 126


def test_125_the_same_photos_give_the_same_version_but_for_its_time(fake_embedder: Embedder, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", NEW)
    for path in photos.rglob("*.jpg"):
        os.utime(path, (0, 0))  # the stamps of files that changed a moment ago are not kept
    made = []
    for place in ("first", "second"):
        index = IndexDirectory(tmp_path / place)
        build_index(photos, index, fake_embedder)
        manifest = json.loads((index.path_of(index.current()) / MANIFEST_NAME).read_bytes())
        assert manifest.pop("id").endswith(manifest["content_sha256"][:8])
        del manifest["created"]
        made.append((manifest, content_of(index)))
    assert made[0] == made[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0], ids=["126 NaN", "126 infinity", "126 nothing"])
def test_a_network_that_gives_no_vector_of_length_1_stops_the_build(
    index: IndexDirectory, fake_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    embedder = Embedder.load(fake_model, "fake")
    photos = write_photos(tmp_path / "photos", OLD)
    version = build_index(photos, index, embedder).version
    write_photos(photos, NEW)
    embed = embedder.runtime.embed

    def broken(crops: Pixels) -> Any:
        rows = embed(crops)
        rows[-1] = value
        return rows

    monkeypatch.setattr(embedder.runtime, "embed", broken)
    with pytest.raises(EmbeddingInvalid, match="not a vector of length 1"):
        build_index(photos, index, embedder)
    assert index.verify(index.current()).id == version
    assert index.versions() == [version]
