"""The log of changes: what is durable when, what is pruned, and the command that folds it."""

import errno
import json
import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.delta import DeltaLog, NewPhoto
from indexer.items import sha256_bytes
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import DeltaUnusable, FileUnreadable
from service.engine import Engine
from tests.conftest import Printed
from tests.support.photos import car_photo

VECTOR = np.full(4, 0.5, np.float32)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DeltaLog]:
    made = DeltaLog(tmp_path / "delta")
    yield made
    made.close()


def new(identity: str, photo: bytes = b"photo") -> NewPhoto:
    return NewPhoto(identity, "a", photo, VECTOR, {"price": "5"})


def files(log: DeltaLog) -> set[str]:
    return {path.name for path in log.photos.iterdir()}


def test_changes_come_in_their_order_with_ever_larger_sequences(log: DeltaLog) -> None:
    log.put([new("x"), new("y")], "space")
    log.delete("x")
    first, second, third = log.changes()
    assert [(one.id, one.label, one.metadata) for one in (first, second)] == [("x", "a", {"price": "5"})] * 1 + [
        ("y", "a", {"price": "5"})
    ]
    assert (third.id, third.sha256) == ("x", None)
    assert first.sequence < second.sequence < third.sequence
    assert log.changes(second.sequence) == [third]
    assert log.last_of_each() == [second, third]
    assert log.read(sha256_bytes(b"photo")) == b"photo"
    found = log.embedding(sha256_bytes(b"photo"), lambda name: name == "space")
    assert found is not None
    assert found.tolist() == VECTOR.tolist()
    assert log.embedding(sha256_bytes(b"photo"), lambda name: name == "other") is None


def test_a_sequence_is_never_given_twice_even_after_a_restore(log: DeltaLog, tmp_path: Path) -> None:
    log.delete("x")
    shutil.copytree(log.folder, tmp_path / "backup")
    log.delete("y")
    lost = log.changes()[-1].sequence
    restored = DeltaLog(tmp_path / "backup")
    restored.delete("z")
    assert [one.id for one in restored.changes()] == ["x", "z"]
    assert restored.changes()[-1].sequence > lost
    restored.close()


def test_the_photo_is_durable_before_its_row(log: DeltaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted(name: str, step: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            steps.append(name)
            with sqlite3.connect(log.folder / "delta.sqlite") as other:
                assert other.execute("SELECT count(*) FROM changes").fetchone() == (0,)
            other.close()
            return step(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", fsync))
    monkeypatch.setattr(Path, "replace", noted("rename", replace))
    log.put([new("x")], "space")
    assert steps == ["fsync", "rename", "fsync"]  # the file, its name, the folder
    assert len(log.changes()) == 1


def test_a_photo_that_cannot_be_written_leaves_nothing(log: DeltaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        log.put([new("x")], "space")
    assert (log.changes(), files(log)) == ([], set())


def test_a_damaged_log_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "delta.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(DeltaUnusable, match=r"The log of changes in .* cannot be used: file is not a database\."):
        DeltaLog(tmp_path)


def test_pruning_leaves_the_last_change_of_each_id_and_its_photo(log: DeltaLog) -> None:
    log.put([new("x", b"1"), new("y", b"1"), new("z", b"2")], "space")
    log.put([new("x", b"3")], "space")
    log.delete("z")
    (log.photos / ".fresh").write_bytes(b"of a put that goes on")
    old = log.photos / ".old"
    old.write_bytes(b"of a put that was killed")
    os.utime(old, (0, 0))
    log.prune()
    assert [(one.id, one.sha256 is None) for one in log.changes()] == [("y", False), ("x", False), ("z", True)]
    assert files(log) == {sha256_bytes(b"1"), sha256_bytes(b"3"), ".fresh"}
    assert log.embedding(sha256_bytes(b"2"), lambda _: True) is None


def test_a_damaged_photo_is_not_read(log: DeltaLog) -> None:
    log.put([new("x")], "space")
    (photo,) = log.photos_put(log.changes())
    assert photo.read() == b"photo"
    photo.file.write_bytes(b"other")
    with pytest.raises(FileUnreadable):
        photo.read()


def _put_many(folder: Path, name: str) -> None:
    log = DeltaLog(folder)
    for number in range(6):
        log.put([new(f"{name}{number}", f"{name}{number}".encode())], "space")
        log.prune()
    log.close()


def test_processes_share_a_log(log: DeltaLog) -> None:
    assert log.has_changed()
    assert not log.has_changed()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(log.folder, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert log.has_changed()
    assert {one.id for one in log.changes()} == {f"{name}{number}" for name in "ab" for number in range(6)}
    assert files(log) == {one.sha256 for one in log.changes()}


def test_the_command_folds_changes_in(
    carsearch: Callable[..., Printed],
    fake_index: IndexDirectory,
    fake_embedder: Embedder,
    log: DeltaLog,
    tmp_path: Path,
) -> None:
    root = Path(shutil.copytree(fake_index.root, tmp_path / "index"))
    fold = ("index", "--fold", "--index", root, "--delta", log.folder)
    assert carsearch("index", "--fold", "--index", root).returncode == 2
    nothing = carsearch(*fold)
    assert (nothing.returncode, nothing.stdout.partition(":")[0]) == (0, "unchanged")
    photo = car_photo(9, 9)
    log.put([NewPhoto("new.jpg", "car 9", photo, fake_embedder.embed_photo(photo))], fake_embedder.embedding_id)
    log.delete("car 1/0.jpg")
    told = carsearch(*fold)
    assert told.returncode == 0, told.stderr
    assert "12 photos of 4 classes (0 embedded, 12 reused, 0 skipped)" in told.stdout
    assert "Folded in: 1 photos put, 1 ids deleted." in told.stderr
    engine = Engine.load(IndexDirectory(root), runtime="fake", delta_dir=log.folder)
    assert engine.search(photo, 1)[0].id == "new.jpg"
    assert engine.manifest.sequence == log.changes()[-1].sequence
    assert json.loads((IndexDirectory(root).path_of(engine.manifest.id) / "skipped.json").read_text()) == []


def test_a_photo_without_an_embedding_of_the_model_is_not_folded(
    carsearch: Callable[..., Printed], fake_index: IndexDirectory, log: DeltaLog, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(fake_index.root, tmp_path / "index"))
    log.put([new("new.jpg")], "another model")
    told = carsearch("index", "--fold", "--index", root, "--delta", log.folder)
    assert told.returncode == 1
    assert 'put as "new.jpg" has no embedding of the model fake yet' in told.stderr
