"""A version that was verified with the same state directory is served at once and verified meanwhile."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from indexer.build import build_index
from indexer.manifest import SKIPPED_NAME, Manifest
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from service.observability.metrics import Metrics
from service.reloader import Reloader
from tests.support.app import fake_settings
from tests.support.calls import eventually
from tests.support.photos import write_gallery


@pytest.fixture
def index(fake_index: IndexDirectory, tmp_path: Path) -> IndexDirectory:
    """A copy that a test may damage."""
    return IndexDirectory(Path(shutil.copytree(fake_index.root, tmp_path / "index")))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state" / "loading").mkdir(parents=True)
    return tmp_path / "state"


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How versions were verified, in order: by their sizes, or every byte, before they were served or meanwhile."""
    told: list[str] = []
    verify = IndexDirectory.verify

    def telling(index: IndexDirectory, version: str, *, contents: bool = True) -> Manifest:
        meanwhile = threading.current_thread().name == "index-verification"
        told.append("sizes" if not contents else "bytes meanwhile" if meanwhile else "bytes first")
        return verify(index, version, contents=contents)

    monkeypatch.setattr(IndexDirectory, "verify", telling)
    return told


def started(index: IndexDirectory, state_dir: Path | None) -> Reloader:
    """A server's reloader that has looked once; its thread is not started."""
    reloader = Reloader(fake_settings(index.root, state_dir=state_dir), Metrics())
    reloader.look()
    return reloader


def serves(reloader: Reloader) -> str | None:
    return None if reloader.loaded is None else reloader.loaded.manifest.id


def counted(reloader: Reloader, name: str) -> float | None:
    return reloader.metrics.registry.get_sample_value(f"carsearch_{name}")


def damage_unseen(index: IndexDirectory, version: str) -> None:
    """Changes a file that is not loaded, which keeps its size, time of change and inode."""
    path = index.path_of(version) / SKIPPED_NAME
    before = path.stat()
    path.write_text("{}")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def point_to(index: IndexDirectory, version: str) -> None:
    (index.root / CURRENT_NAME).write_text(f"{version}\n")


def look_until_refused(reloader: Reloader, version: str) -> None:
    def refused() -> bool:
        reloader.look()
        return reloader.refused_version == version

    eventually(refused, "the version is refused")


def test_a_version_is_verified_first_once_and_then_meanwhile(
    index: IndexDirectory, state: Path, verified: list[str]
) -> None:
    first = started(index, state)
    assert (serves(first), verified) == (index.current(), ["bytes first"])
    verified.clear()
    again = started(index, state)
    assert serves(again) == index.current()
    eventually(lambda: verified == ["sizes", "bytes meanwhile"], "it was verified meanwhile")
    again.look()
    assert (serves(again), again.refused_version) == (index.current(), None)


def test_without_a_state_directory_every_start_verifies_first(index: IndexDirectory, verified: list[str]) -> None:
    for _ in range(2):
        started(index, None)
    assert verified == ["bytes first"] * 2


@pytest.mark.parametrize("change", [lambda path: os.utime(path), lambda path: shutil.copy(path, f"{path}.new")])
def test_files_that_are_not_those_that_were_verified_are_verified_first(
    index: IndexDirectory, state: Path, verified: list[str], change: object
) -> None:
    started(index, state)
    assert callable(change)
    change(index.path_of(index.current()) / SKIPPED_NAME)
    verified.clear()
    started(index, state)
    assert verified == ["bytes first"]


def test_a_version_that_turns_out_to_be_damaged_is_taken_back_and_verified_first_from_then_on(
    index: IndexDirectory, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = index.current()
    started(index, state)
    damage_unseen(index, version)
    reloader = started(index, state)
    assert (serves(reloader), counted(reloader, "ready")) == (version, 1)
    look_until_refused(reloader, version)
    assert (serves(reloader), reloader.why_not) == (None, "The index cannot be served; the server's log says why.")
    numbers = [counted(reloader, name) for name in ("ready", "index_refused", "index_refusals_total")]
    assert numbers == [0, 1, 1]
    assert f"{SKIPPED_NAME} does not have the recorded sha256" in caplog.text
    assert list((state / "verified").iterdir()) == []
    assert serves(started(index, state)) is None


def test_a_damaged_version_is_taken_back_though_the_disk_takes_no_notes(
    index: IndexDirectory, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = index.current()
    started(index, state)
    damage_unseen(index, version)
    reloader = started(index, state)
    assert serves(reloader) == version
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "verified":
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    look_until_refused(reloader, version)
    assert serves(reloader) is None


def test_the_version_before_answers_again_when_the_next_turns_out_to_be_damaged(
    index: IndexDirectory, state: Path, tmp_path: Path, fake_embedder: Embedder
) -> None:
    old = index.current()
    reloader = started(index, state)
    new = build_index(write_gallery(tmp_path / "new", first_kind=20), index, fake_embedder).version
    reloader.look()
    assert (serves(reloader), sorted(path.name for path in (state / "verified").iterdir())) == (new, [old, new])
    damage_unseen(index, old)
    point_to(index, old)
    reloader.look()
    assert serves(reloader) == old
    look_until_refused(reloader, old)
    assert (serves(reloader), counted(reloader, "ready"), counted(reloader, "index_refused")) == (new, 1, 1)


def test_versions_that_are_gone_are_forgotten(
    index: IndexDirectory, state: Path, tmp_path: Path, fake_embedder: Embedder
) -> None:
    started(index, state)
    build_index(write_gallery(tmp_path / "new", first_kind=20), index, fake_embedder)
    index.remove(index.versions()[0])
    started(index, state)
    assert [path.name for path in (state / "verified").iterdir()] == [index.current()]
