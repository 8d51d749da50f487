"""Following CURRENT: swaps, refusals, and the mark that a version leaves which crashes its server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.build import build_index
from indexer.manifest import INDEX_NAME, ITEMS_NAME, MANIFEST_NAME
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from service import reloader as reloading
from service.engine import Engine
from service.observability.metrics import Metrics
from service.reloader import NO_INDEX, Reloader
from tests.conftest import write_fake_model
from tests.support.app import fake_settings
from tests.support.photos import write_gallery

BAD = "20990101T000000.000000Z-bad"
REFUSED, REFUSALS, SWAPS = (f"carsearch_index_{name}" for name in ("refused", "refusals_total", "swaps_total"))


def make(index: IndexDirectory, **settings: object) -> Reloader:
    """A reloader whose thread is not started: a test calls `look`."""
    return Reloader(fake_settings(index.root, **settings), Metrics())


def counted(reloader: Reloader, name: str) -> float | None:
    return reloader.metrics.registry.get_sample_value(name)


@pytest.fixture
def index(fake_index: IndexDirectory, tmp_path: Path) -> IndexDirectory:
    """A copy that a test may damage."""
    return IndexDirectory(Path(shutil.copytree(fake_index.root, tmp_path / "index")))


def copied(index: IndexDirectory, damage: Callable[[Path], object] = lambda _: None, version: str = BAD) -> str:
    """A copy of the current version under another name, damaged, which CURRENT then names."""
    directory = index.path_of(version)
    shutil.copytree(index.path_of(index.current()), directory)
    change_the_manifest(id=version)(directory)
    damage(directory)
    point_to(index, version)
    return version


def point_to(index: IndexDirectory, name: str) -> None:
    (index.root / CURRENT_NAME).write_text(f"{name}\n")


def change_the_manifest(**changes: object) -> Callable[[Path], None]:
    def change(version: Path) -> None:
        manifest = json.loads((version / MANIFEST_NAME).read_text())
        (version / MANIFEST_NAME).write_text(json.dumps({**manifest, **changes}))

    return change


def flip_a_byte(version: Path) -> None:
    content = bytearray((version / INDEX_NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (version / INDEX_NAME).write_bytes(content)


def cut_the_items(version: Path) -> None:
    content = (version / ITEMS_NAME).read_bytes()
    (version / ITEMS_NAME).write_bytes(content[: len(content) // 2])


def serving(reloader: Reloader) -> Engine:
    assert reloader.loaded is not None
    return reloader.loaded


def garble_the_manifest(version: Path) -> None:
    (version / MANIFEST_NAME).write_bytes(b"\xff{")


def test_until_there_is_an_index_nothing_is_ready_and_then_it_is_kept(
    tmp_path: Path, fake_embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    index = IndexDirectory(tmp_path / "index")
    reloader = make(index)
    assert (reloader.loaded, reloader.why_not) == (None, "The server is loading its index.")
    for _ in range(2):
        reloader.look()
        assert (reloader.loaded, reloader.why_not) == (None, NO_INDEX)
    assert [record.message.partition(";")[0] for record in caplog.records] == [f"There is no index in {index.root}"]
    assert (reloader.loaded, counted(reloader, "carsearch_ready")) == (None, 0)

    version = build_index(write_gallery(tmp_path / "gallery"), index, fake_embedder).version
    reloader.look()
    assert serving(reloader).manifest.id == version
    assert [counted(reloader, name) for name in ("carsearch_ready", SWAPS)] == [1, 1]
    (index.root / CURRENT_NAME).unlink()
    reloader.look()
    assert serving(reloader).manifest.id == version


def test_a_new_version_is_swapped_in_whole_and_lends_the_model(index: IndexDirectory) -> None:
    reloader = make(index)
    reloader.look()
    old = serving(reloader)
    version = copied(index)
    reloader.look()
    new = serving(reloader)
    assert (old.manifest.id, new.manifest.id) == (index.versions()[0], version)
    assert new.embedder is old.embedder
    for _ in range(2):  # the same again is no swap
        point_to(index, version)
        reloader.look()
    assert counted(reloader, SWAPS) == 2


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        cut_the_items,
        garble_the_manifest,
        shutil.rmtree,
        lambda version: (version / MANIFEST_NAME).unlink(),
        lambda version: (version / INDEX_NAME).unlink(),
        change_the_manifest(schema_version=99),
        change_the_manifest(metric="l2"),
        change_the_manifest(dim=7),
        change_the_manifest(count=11),
        change_the_manifest(id="another"),
        change_the_manifest(model_sha256="0" * 64),
        change_the_manifest(preprocessing_sha256="0" * 64),
        change_the_manifest(embedding_id="0" * 16),
        change_the_manifest(created="yesterday"),
        change_the_manifest(created="0001-01-01"),
    ],
)  # fmt: skip
def test_a_version_that_does_not_verify_is_refused_and_the_old_one_goes_on(
    index: IndexDirectory, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    reloader, good = make(index), index.current()
    reloader.look()
    bad = copied(index, damage)
    for _ in range(3):  # it is told once
        reloader.look()
    assert (reloader.refused_version, serving(reloader).manifest.id) == (bad, good)
    assert [counted(reloader, name) for name in (REFUSED, REFUSALS, SWAPS)] == [1, 1, 1]
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert told.startswith(f"refused index version {bad}: ")
    assert told.endswith(f", or carsearch versions rollback --index {index.root}.")
    point_to(index, good)
    reloader.look()
    assert (reloader.refused_version, counted(reloader, REFUSED)) == (None, 0)


def test_a_version_that_fails_in_an_unknown_way_is_refused_with_its_traceback(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reloader = make(index)
    reloader.look()
    monkeypatch.setattr(Engine, "load", lambda *_, **__: 1 // 0)
    bad = copied(index)
    reloader.look()
    assert reloader.refused_version == bad
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("rubbish", [b"", b"../..", b"\xff\xfe", b"x" * 5000, b"a/b"])
def test_a_current_that_names_nothing_changes_nothing(
    index: IndexDirectory, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reloader, good = make(index), index.current()
    reloader.look()
    (index.root / CURRENT_NAME).write_bytes(rubbish)
    for _ in range(3):
        reloader.look()
    assert serving(reloader).manifest.id == good
    assert sum(record.levelname in ("ERROR", "WARNING") for record in caplog.records) == 1
    point_to(index, good)
    reloader.look()
    assert reloader.refused_version is None


def test_an_index_of_another_model_than_the_expected_is_not_served(
    index: IndexDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reloader = make(index, model=str(write_fake_model(tmp_path / "model", dim=65)))
    reloader.look()
    assert reloader.loaded is None
    assert "the server's log says why" in reloader.why_not
    assert reloader.refused_version == index.current()
    assert f"was built with the model {index.manifest(index.current()).model_sha256[:12]}" in caplog.text


def test_110_a_version_that_does_not_fit_into_memory_waits_until_there_is_some(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reloader, version = make(index), index.current()
    told: list[tuple[bool, str | None]] = []
    for free, now in ((50 << 20, 0.0), (1 << 30, 1.0), (1 << 30, reloading.RETRY_S + 1.0)):
        monkeypatch.setattr(reloading, "available_bytes", lambda free=free: free)
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        reloader.look()
        told.append((reloader.loaded is not None, reloader.refused_version))
    assert told == [(False, version), (False, version), (True, None)]  # at once, before it is tried again, and then
    assert "index_too_large: " in caplog.text
    assert "MiB of memory while it is loaded, and 50 MiB are free" in caplog.text


def test_a_version_published_again_under_a_refused_name_is_looked_at_again(index: IndexDirectory) -> None:
    reloader, looks = make(index), list[str | None]()
    good = index.path_of(index.current())
    bad = copied(index, flip_a_byte)
    reloader.look()
    looks.append(reloader.refused_version)
    shutil.copy(good / INDEX_NAME, index.path_of(bad) / INDEX_NAME)
    point_to(index, bad)
    os.utime(index.root / CURRENT_NAME, ns=(1, 1))
    reloader.look()
    looks.append(reloader.refused_version)
    assert (looks, serving(reloader).manifest.id) == ([bad, None], bad)


def test_the_thread_outlives_whatever_looking_raises(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reloader = Reloader(fake_settings(index.root), Metrics(), interval_s=0.001)
    looks = iter([OSError("a bad disk"), OSError("a bad disk")])
    real = reloader.look

    def look() -> None:
        if (problem := next(looks, None)) is not None:
            raise problem
        real()

    monkeypatch.setattr(reloader, "look", look)
    reloader.start()
    deadline = time.monotonic() + 30
    while reloader.loaded is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    reloader.stop()
    assert caplog.text.count("OSError: a bad disk") == 2


# The mark of a version that is being loaded.


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state" / "loading").mkdir(parents=True)
    return tmp_path / "state"


def marks(state: Path) -> list[Path]:
    return list((state / "loading").iterdir())


def leave_mark(state: Path, version: str, text: str) -> Path:
    mark = state / "loading" / version
    mark.write_text(text)
    return mark


def test_a_version_that_loads_leaves_no_mark(index: IndexDirectory, state: Path) -> None:
    reloader = make(index, state_dir=state)
    reloader.look()
    assert serving(reloader).manifest.id == index.current()
    assert marks(state) == []


def test_a_version_that_is_refused_leaves_no_mark(index: IndexDirectory, state: Path) -> None:
    reloader = make(index, state_dir=state)
    copied(index, flip_a_byte)
    reloader.look()
    assert reloader.refused_version == BAD
    assert marks(state) == []


def test_a_mark_with_the_text_of_a_crash_refuses_its_version_in_one_sentence(
    index: IndexDirectory, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = index.current()
    mark = leave_mark(state, version, "Fatal Python error: Segmentation fault")
    reloader = make(index, state_dir=state)
    reloader.look()
    assert (reloader.loaded, reloader.refused_version) == (None, version)
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert f"A server crashed while it loaded index version {version}; " in told
    assert f"delete {mark} to have it tried once more." in told
    mark.unlink()
    again = make(index, state_dir=state)
    again.look()
    assert serving(again).manifest.id == version


def test_an_empty_mark_which_a_killed_server_leaves_refuses_nothing(index: IndexDirectory, state: Path) -> None:
    leave_mark(state, index.current(), "")
    reloader = make(index, state_dir=state)
    reloader.look()
    assert serving(reloader).manifest.id == index.current()
    assert marks(state) == []


def test_a_mark_is_of_one_version(index: IndexDirectory, state: Path) -> None:
    leave_mark(state, index.current(), "Fatal Python error: Segmentation fault")
    reloader = make(index, state_dir=state)
    copied(index)
    reloader.look()
    assert serving(reloader).manifest.id == BAD


CRASHES = """
import os, signal, sys
from pathlib import Path
from service.engine import Engine
from service.observability.metrics import Metrics
from service.reloader import Reloader
from service.settings import Settings

index, folder, *names = sys.argv[1:]
for name in names:
    if os.fork() == 0:
        Engine.load = lambda *_, **__: os.kill(os.getpid(), getattr(signal, name))
        Reloader(Settings(index_dir=Path(index), state_dir=Path(folder, name), runtime="fake"), Metrics()).look()
        os._exit(0)
    print(name, os.WTERMSIG(os.wait()[1]))
"""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory, fake_index: IndexDirectory) -> Path:
    """State directories, named by the signals that ended servers while they loaded `fake_index`."""
    folder: Path = tmp_path_factory.mktemp("crashed")
    names = ("SIGSEGV", "SIGABRT", "SIGKILL")
    for name in names:
        (folder / name).mkdir()
    command = [sys.executable, "-c", CRASHES, str(fake_index.root), str(folder), *names]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.split("\n")[:-1] == [f"{name} {getattr(signal, name):d}" for name in names]
    return folder


@pytest.mark.parametrize(("name", "refused"), [("SIGSEGV", True), ("SIGABRT", True), ("SIGKILL", False)])
def test_a_version_that_crashed_a_server_is_refused_by_the_next_and_one_whose_server_was_killed_is_not(
    fake_index: IndexDirectory, crashed: Path, name: str, refused: bool
) -> None:
    (mark,) = marks(crashed / name)
    assert ("Fatal Python error" in mark.read_text()) == refused
    reloader = make(fake_index, state_dir=crashed / name)
    reloader.look()
    assert (reloader.refused_version == fake_index.current(), reloader.loaded is None) == (refused, refused)
