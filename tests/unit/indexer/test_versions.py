"""Index versions: publish, keep, clean, roll back, lock."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from indexer.build import build_index
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from model.errors import CarsearchError, IndexLocked, IndexNotFound, VersionNotFound
from tests.conftest import write_fake_model
from tests.support.servers import run_cli
from tests.unit.indexer.sets import VERSION_FILES, assert_clean, content_of, files_of, items_of, write_photos

HOLD = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, 2); print('held', flush=True); input()"


@contextmanager
def other_writer(index: IndexDirectory) -> Iterator[None]:
    """A second process that holds the lock of an index directory."""
    index.root.mkdir(exist_ok=True)
    command = [sys.executable, "-c", HOLD, str(index.root / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate("\n", timeout=30)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", ["a/0.jpg", "a/1.jpg", "b/0.jpg"])


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return IndexDirectory(tmp_path / "index")


def build_versions(photos: Path, index: IndexDirectory, embedder: Embedder, count: int, keep: int = 9) -> list[str]:
    """Publishes some versions, each with one photo more than the one before."""
    made = []
    for number in range(count):
        write_photos(photos, [f"b/new{number}.jpg"])
        made.append(build_index(photos, index, embedder, keep=keep).version)
    return made


def test_a_version_lies_where_the_design_says_and_says_what_it_is(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    version = build_index(photos, index, fake_embedder).version
    model = fake_embedder.model_sha256
    assert (index.root / CURRENT_NAME).read_text() == f"{version}\n"
    assert set(files_of(index.root)) == {
        CURRENT_NAME,
        *(f"versions/{version}/{name}" for name in (*VERSION_FILES, "manifest.json")),
        *(f"models/{model}/{name}" for name in ("card.json", "golden.jpg", "weights.safetensors")),
    }
    directory = index.path_of(version)
    manifest = json.loads((directory / "manifest.json").read_bytes())
    assert manifest["schema_version"] == 1
    assert manifest["id"] == version == index.current()
    assert (manifest["dim"], manifest["count"], manifest["metric"]) == (64, 3, "inner_product")
    assert manifest["index_recipe"] == {"kind": "IndexFlatIP", "chosen": "auto"}
    assert (manifest["model_sha256"], manifest["model_name"]) == (model, "fake")
    assert manifest["embedding_id"] == fake_embedder.embedding_id
    assert manifest["preprocessing_sha256"] == fake_embedder.card.input.sha256
    assert manifest["gallery"] == {"root": str(photos.resolve()), "classes": 2, "skipped": 0}
    for name in VERSION_FILES:
        data = (directory / name).read_bytes()
        assert manifest["files"][name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert index.verify(version).to_json() == manifest


def test_two_versions_share_one_copy_of_their_model(photos: Path, index: IndexDirectory, tmp_path: Path) -> None:
    embedder = Embedder.load(write_fake_model(tmp_path / "model"), "fake")
    build_versions(photos, index, embedder, 1)
    copied = [path.stat().st_mtime_ns for path in index.model_path(embedder.model_sha256).iterdir()]
    build_versions(photos, index, embedder, 2)
    assert len(index.versions()) == 2
    assert [path.name for path in (index.root / "models").iterdir()] == [embedder.model_sha256]
    assert [path.stat().st_mtime_ns for path in index.model_path(embedder.model_sha256).iterdir()] == copied


def test_a_published_directory_is_never_modified(photos: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    def state() -> dict[str, tuple[int, int, bytes]]:
        folders = (index.path_of(first), index.model_path(fake_embedder.model_sha256))
        paths = [path for folder in folders for path in (folder, *folder.iterdir())]
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes() if path.is_file() else b"")
            for path in paths
        }

    (first,) = build_versions(photos, index, fake_embedder, 1)
    before = state()
    build_versions(photos, index, fake_embedder, 3)
    index.rollback(first)
    build_index(photos, index, fake_embedder, keep=9)
    items_of(index)
    assert state() == before


@pytest.mark.parametrize(("keep", "kept"), [(1, 1), (2, 2), (3, 3), (9, 4)])
def test_the_newest_versions_are_kept(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, keep: int, kept: int
) -> None:
    made = build_versions(photos, index, fake_embedder, 4, keep)
    assert index.versions() == made[-kept:]
    assert index.current() == made[-1]


def test_the_current_version_is_kept_however_old(photos: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    made = build_versions(photos, index, fake_embedder, 4)
    index.rollback(made[0])
    index.clean(keep=1)
    assert index.versions() == [made[0], made[3]]
    assert_clean(index)


def test_a_model_goes_with_its_last_version(photos: Path, index: IndexDirectory, tmp_path: Path) -> None:
    for dim in (8, 16, 24):
        build_index(photos, index, Embedder.load(write_fake_model(tmp_path / str(dim), dim), "fake"), keep=2)
    assert len(index.versions()) == 2
    assert_clean(index)


def test_models_stay_where_a_version_does_not_tell_its_own(
    photos: Path, index: IndexDirectory, tmp_path: Path, fake_embedder: Embedder
) -> None:
    newer = build_index(photos, index, Embedder.load(write_fake_model(tmp_path / "model", 8), "fake")).version
    manifest = index.path_of(newer) / "manifest.json"
    told = manifest.read_text()
    manifest.write_text(told.replace('"schema_version": 1', '"schema_version": 2'))
    build_index(photos, index, fake_embedder)
    manifest.write_text(told)
    assert index.rollback(newer) == newer


def test_what_crashes_left_behind_is_removed(photos: Path, index: IndexDirectory, fake_embedder: Embedder) -> None:
    (version,) = build_versions(photos, index, fake_embedder, 1)
    directory = index.path_of(version)
    for leftover in (f"{version}9.tmp", f".{version}9.deleted", f".{version}8.tmp.deleted"):
        shutil.copytree(directory, directory.with_name(leftover))
        shutil.copytree(directory, index.root / "models" / leftover)
    (index.root / f"{CURRENT_NAME}.123.tmp").write_text("half")
    (index.root / "work" / "0123").mkdir(parents=True)
    assert index.versions() == [version]
    build_index(photos, index, fake_embedder)
    assert_clean(index)
    assert index.versions() == [version]


def test_rollback_goes_to_the_version_before_or_the_one_named(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    first, second, third = build_versions(photos, index, fake_embedder, 3)
    assert index.rollback() == second == index.current()
    assert index.rollback() == first == index.current()
    with pytest.raises(VersionNotFound, match="no version before"):
        index.rollback()
    assert index.rollback(third) == third == index.current()
    for absent in ("nonsense", f"{third}.tmp", "20200101T000000.000000Z-00000000"):
        with pytest.raises(VersionNotFound):
            index.rollback(absent)
    assert index.current() == third
    assert len(items_of(index)) == 6


def test_rollback_stays_where_it_is_when_the_version_before_is_damaged(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    first, second = build_versions(photos, index, fake_embedder, 2)
    (index.path_of(first) / "index.faiss").write_bytes(b"")
    with pytest.raises(CarsearchError, match=r"is damaged: index\.faiss"):
        index.rollback()
    assert index.current() == second


def test_without_an_index_there_is_nothing_to_read(index: IndexDirectory) -> None:
    assert index.versions() == []
    with pytest.raises(IndexNotFound, match="make one: carsearch index"):
        index.current()


def test_a_second_writer_is_refused_and_changes_nothing(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    build_versions(photos, index, fake_embedder, 2)
    before = files_of(index.root)
    write_photos(photos, ["c/0.jpg"])
    with other_writer(index):
        with pytest.raises(IndexLocked):
            build_index(photos, index, fake_embedder)
        with pytest.raises(IndexLocked):
            index.rollback()
        answer = run_cli("versions", "rollback", "--index", index.root)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == f"error: Another process is writing to {index.root}; wait for it to end.\n"
    assert files_of(index.root) == before
    assert build_index(photos, index, fake_embedder).embedded == 1


@pytest.mark.slow
def test_117_a_second_indexer_on_the_command_line_is_told_so(photos: Path, index: IndexDirectory) -> None:
    with other_writer(index):
        answer = run_cli("index", photos, "--index", index.root, "--model", "resnet18")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.splitlines()[-1].startswith("error: Another process is writing to")
    assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_any_history_keeps_current_whole(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> None:
    class History(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            root = tmp_path_factory.mktemp("history")
            self.photos, self.index = root / "photos", IndexDirectory(root / "index")
            self.held: set[str] = set()

        @rule(names=st.sets(st.sampled_from(["a/0.jpg", "a/1.jpg", "b/0.jpg"]), min_size=1), keep=st.integers(1, 3))
        def build(self, names: set[str], keep: int) -> None:
            shutil.rmtree(self.photos, ignore_errors=True)
            photos = write_photos(self.photos, names)
            result = build_index(photos, self.index, fake_embedder, keep=keep, allow_removals=True)
            assert result.changed == (self.held != names)
            assert result.embedded <= len(names - self.held)
            assert len(self.index.versions()) <= keep + 1
            assert_clean(self.index)
            self.held = names

        @precondition(lambda self: self.held)
        @rule(data=st.data())
        def roll_back(self, data: st.DataObject) -> None:
            self.index.rollback(data.draw(st.sampled_from(self.index.versions())))
            self.held = set(items_of(self.index))

        @precondition(lambda self: self.held)
        @rule()
        def crash(self) -> None:
            directory = self.index.path_of(self.index.current())
            shutil.copytree(directory, directory.with_name(f"{directory.name}0.tmp"), dirs_exist_ok=True)

        @invariant()
        def whole(self) -> None:
            if self.held:
                self.index.verify(self.index.current())
                assert set(items_of(self.index)) == self.held
                assert len(content_of(self.index)[0]) == 45 + 4 * 64 * len(self.held)

    run_machine(History, settings=settings(max_examples=10, stateful_step_count=8, deadline=None))


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system without locks: what its error says. tests/deploy has a real one."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    return os.strerror(errno.ENOLCK)


def test_without_locks_a_file_keeps_other_writers_out(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, no_locks: str, caplog: pytest.LogCaptureFixture
) -> None:
    holder = index.root / ".lock.holder"
    with index.lock():
        (told,) = [record.getMessage() for record in caplog.records]
        with pytest.raises(IndexLocked) as raised:
            build_index(photos, index, fake_embedder)
    who = f"Process {os.getpid()} on {socket.gethostname()}"
    assert str(raised.value) == (
        f"{who} is writing to {index.root}; wait for it to end, or remove {holder} if it was killed."
    )
    assert told == (
        f"The file system of {index.root} has no locks ({no_locks}): until this is done {holder} keeps other writers "
        "out. If it is killed, remove that file."
    )
    build_index(photos, index, fake_embedder)
    assert_clean(index)


def test_without_locks_a_failed_build_leaves_no_file_that_keeps_the_next_one_out(
    index: IndexDirectory, no_locks: str
) -> None:
    with pytest.raises(OSError, match="full"), index.lock():
        raise OSError("full")
    with index.lock():
        assert no_locks
    assert not (index.root / ".lock.holder").exists()


def test_an_error_of_the_lock_names_its_path(index: IndexDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error") as raised, index.lock():
        pass
    assert raised.value.filename == str(index.root / ".lock")
