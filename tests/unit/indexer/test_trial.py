"""Reading a version in a child process: whatever that does to the child, the parent gets an answer and goes on."""

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer import load as trial
from indexer.build import build_index
from indexer.load import Trials, read_contents
from indexer.stores.faiss import FaissStore
from indexer.versions import INDEX_NAME, ITEMS_NAME, MANIFEST_NAME, IndexDirectory
from model.embedder import Embedder
from model.errors import DimMismatch, IndexInvalid
from tests.support.hostile import write_hostile_reader
from tests.unit.indexer.sets import write_photos


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> IndexDirectory:
    """One version of three photos."""
    root = tmp_path_factory.mktemp("trial")
    index = IndexDirectory(root / "index")
    build_index(write_photos(root / "photos", ["a/0.jpg", "a/1.jpg", "b/0.jpg"]), index, fake_embedder)
    return index


def version_named(index: IndexDirectory, name: str) -> str:
    """A copy of the current version under another name."""
    current = index.current()
    shutil.copytree(index.path_of(current), index.path_of(name))
    manifest = index.path_of(name) / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace(current, name))
    return name


def read_in_a_child(trials: Trials, index: IndexDirectory, version: str) -> None:
    with trials.begin(index, index.manifest(version)) as wait:
        wait()


@pytest.fixture
def hostile(index: IndexDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IndexDirectory:
    """The same, with a reader in child processes that does what a version's name says."""
    folder = tmp_path / "hostile"
    write_hostile_reader(folder)
    monkeypatch.syspath_prepend(str(folder))
    return index


def test_a_good_version_is_read_in_a_child_once(index: IndexDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    popen = subprocess.Popen

    def counting(command: list[str], **options: Any) -> Any:
        started.append(command)
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", counting)
    trials = Trials()
    for _ in range(3):
        read_in_a_child(trials, index, index.current())
    assert len(started) == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v-crash", "ended a process that read it, by signal 11, Segmentation fault"),
        ("v-abort", "ended a process that read it, by signal 6, Aborted"),
        ("v-huge", "ended a process that read it, with exit status 1"),
        ("v-hang", "was not read in the time that a slow disk takes"),
    ],
)
def test_096_a_version_that_harms_its_reader_harms_only_the_child(
    hostile: IndexDirectory, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    monkeypatch.setattr(trial, "START_S", 3 if name == "v-hang" else trial.START_S)
    with pytest.raises(IndexInvalid, match=sentence) as refused:
        read_in_a_child(Trials(), hostile, version_named(hostile, name))
    assert str(hostile.path_of(name)) in str(refused.value)


def test_100_an_item_table_that_never_ends_is_not_waited_for(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "START_S", 3)
    version = version_named(index, "v-endless")
    with closing(sqlite3.connect(index.path_of(version) / ITEMS_NAME)) as database, database:
        database.execute("DROP TABLE items")
        database.execute(
            "CREATE VIEW items AS WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number) "
            "SELECT n AS row, n AS id, n AS class, n AS sha256, n AS path FROM number"
        )
    with pytest.raises(IndexInvalid, match="was not read in the time"):
        read_in_a_child(Trials(), index, version)


def test_what_a_child_objects_to_is_told_in_its_words_with_its_code(index: IndexDirectory) -> None:
    version = version_named(index, "v-other")
    rows = np.eye(16, dtype=np.float32)[:12]
    FaissStore.create(rows).write(index.path_of(version) / INDEX_NAME)
    with pytest.raises(DimMismatch, match="has 16 dimensions, its manifest says 64"):
        read_in_a_child(Trials(), index, version)


def test_a_version_that_was_refused_is_tried_again(index: IndexDirectory) -> None:
    version = version_named(index, "v-mended")
    path = index.path_of(version) / INDEX_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    trials = Trials()
    with pytest.raises(IndexInvalid):
        read_in_a_child(trials, index, version)
    path.write_bytes(whole)
    read_in_a_child(trials, index, version)


def test_a_server_that_stops_ends_the_child_and_starts_none(hostile: IndexDirectory) -> None:
    version = version_named(hostile, "v-hang2")
    trials, refusals = Trials(), []

    def load() -> None:
        with pytest.raises(IndexInvalid, match="by signal 9") as refused:
            read_in_a_child(trials, hostile, version)
        refusals.append(refused)

    loading = threading.Thread(target=load)
    loading.start()
    time.sleep(1)
    trials.close()
    loading.join(timeout=30)
    assert len(refusals) == 1
    with pytest.raises(IndexInvalid, match="stops"):
        read_in_a_child(trials, hostile, version)


def test_a_child_does_not_run_what_lies_where_the_server_was_started(
    index: IndexDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    read_in_a_child(Trials(), index, index.current())


def test_contents_are_store_items_and_names(index: IndexDirectory) -> None:
    manifest = index.verify(index.current())
    contents = read_contents(index.path_of(manifest.id), manifest)
    assert (len(contents.store), len(contents.items), contents.names.at(2)) == (3, 3, ("b/0.jpg", "b"))
    contents.items.close()
