"""Cases 093 to 111 of the catalogue: index versions and models that are missing, damaged, forged, foreign or too large.

Each is pointed at while a server serves a good version, and the server must refuse it, say why, and stand. The server
may not read what nobody may read, even where root runs it (`tests/support/hostile.py`).
"""

import json
import math
import os
import pickle
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random

import faiss
import httpx
import numpy as np
import pytest

from indexer.build import build_index
from indexer.class_changes import ClassStatistics
from indexer.items import GalleryItem, write_items
from indexer.manifest import CLASS_STATISTICS_NAME, CLASSES_NAME, INDEX_NAME, ITEMS_NAME, MANIFEST_NAME
from indexer.stores.faiss import FaissStore
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.card import CARD_NAME, GOLDEN_NAME, WEIGHTS_NAME, card_sha256, load_card
from model.embedder import Embedder
from model.errors import CarsearchError
from model.storage import FileRecord
from service import reloader
from service.engine import Engine
from service.observability.metrics import Metrics
from service.reloader import Reloader
from service.settings import load_settings
from tests.conftest import write_fake_model
from tests.e2e.catalogue.bad_versions import (
    BAD,
    REFUSALS,
    REFUSED,
    SWAPS,
    Bad,
    Change,
    Steady,
    edit,
    header,
    manifest,
    serves,
)
from tests.e2e.catalogue.pictures import QUERY
from tests.e2e.catalogue.standing import Standing
from tests.support.calls import assert_problem, eventually, metric
from tests.support.hostile import write_hostile_reader
from tests.support.servers import PATIENCE_S, Server, running_server
from tests.unit.indexer.sets import unit, write_photos

CLIENTS = 4
TRIES = 10_000


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory, catalogue_index: IndexDirectory) -> Iterator[Steady]:
    """A server over a copy of the catalogue's index."""
    folder = tmp_path_factory.mktemp("steady")
    index = IndexDirectory(Path(shutil.copytree(catalogue_index.root, folder / "index")))
    (folder / "spool").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", write_hostile_reader(folder / "hostile"))
        # By itself a server asks torch for a GPU where an index is of no precision that it knows.
        settings = {"SPOOL_DIR": str(folder / "spool"), "SEARCH_THREADS": "2", "RUNTIME": "openvino"}
        with running_server(index.root, folder / "log", True, **settings) as server:
            standing = Standing(server, folder / "spool")
            yield Steady(standing, index, index.current())
            standing.assert_memory()


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.number} {bad.what}")
def test_a_bad_version_is_refused_with_its_code_and_the_server_stands(steady: Steady, bad: Bad) -> None:
    steady.assert_refused(steady.copy(bad.change, told=bad.told), bad.code)
    steady.standing.assert_stands()


@pytest.mark.parametrize("what", ["093 no index directory", "093 no CURRENT", "094 a version that is not there"])
def test_a_server_without_an_index_lives_and_is_not_ready(what: str, tmp_path: Path) -> None:
    root = tmp_path / "index"
    if what != "093 no index directory":
        root.mkdir()
    if what.startswith("094"):
        (root / CURRENT_NAME).write_text("20260101T000000.000000Z-00000000\n")
    with running_server(root, tmp_path / "log", wait_ready=False) as server:
        assert server.client.get("/livez").status_code == 200
        assert_problem(server.client.get("/readyz"), "not_ready", str(tmp_path))
        assert_problem(server.client.post("/search", files={"file": QUERY.read_bytes()}), "not_ready", str(tmp_path))
        eventually(lambda: str(root) in server.log, "the log names the index directory")
        refused = what.startswith("094")
        eventually(lambda: metric(server, REFUSALS) == refused, "a refusal is counted where CURRENT names something")
        assert metric(server, "carsearch_ready") == 0


def test_095_every_cut_and_ten_thousand_flipped_bits_are_found_before_a_byte_is_read_as_an_index(
    tmp_path: Path, fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = IndexDirectory(tmp_path / "index")
    version = build_index(write_photos(tmp_path / "photos", [f"a/{number}.jpg" for number in range(60)]), index,
                          fake_embedder).version  # fmt: skip
    path = index.path_of(version) / INDEX_NAME
    whole = path.read_bytes()
    reads: list[object] = []
    monkeypatch.setattr(faiss, "read_index", reads.append)
    refused = partial(pytest.raises, CarsearchError, match="is damaged: index.faiss")
    for length in range(0, len(whole), 4096):
        path.write_bytes(whole[:length])
        with refused():
            Engine.load(index)
    path.write_bytes(whole)
    random = Random(0)
    with path.open("r+b", buffering=0) as file:
        for _ in range(TRIES):
            place, bit = random.randrange(len(whole)), 1 << random.randrange(8)
            os.pwrite(file.fileno(), bytes([whole[place] ^ bit]), place)
            with refused():
                index.verify(version)
            os.pwrite(file.fileno(), whole[place : place + 1], place)
    assert index.verify(version).id == version
    assert reads == []


def test_096_a_version_that_crashed_a_server_is_refused_by_the_next_one(
    tmp_path: Path, catalogue_index: IndexDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = IndexDirectory(Path(shutil.copytree(catalogue_index.root, tmp_path / "index")))
    good, bad = index.current(), "2099-000-crash"
    shutil.copytree(index.path_of(good), index.path_of(bad))
    edit(index.path_of(bad), id=bad)
    monkeypatch.setenv("PYTHONPATH", write_hostile_reader(tmp_path / "hostile"))
    settings = {"STATE_DIR": str(tmp_path / "state"), "RUNTIME": "openvino"}
    with running_server(index.root, tmp_path / "first", True, **settings) as first:
        (index.root / CURRENT_NAME).write_text(f"{bad}\n")
        assert first.process.wait(PATIENCE_S) == -signal.SIGSEGV
    with running_server(index.root, tmp_path / "second", wait_ready=False, **settings) as second:
        eventually(lambda: metric(second, REFUSALS) == 1, "the version is refused")
        assert_problem(second.client.get("/readyz"), "not_ready", str(tmp_path))
        assert f"A server crashed while it loaded index version {bad}; " in second.log
        index.switch(good)
        eventually(partial(serves, second, good), "the good version is served")


# Models


@contextmanager
def damaged_model(steady: Steady, change: Callable[[Path], None]) -> Iterator[Path]:
    """Inside, the model of the good version is another one; the server has it in memory."""
    directory = steady.index.model_path(steady.index.manifest(steady.good).model_sha256)
    kept = directory.with_name(".kept")
    shutil.copytree(directory, kept)
    try:
        change(directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        kept.rename(directory)


def other_model(directory: Path) -> None:
    shutil.rmtree(directory)
    write_fake_model(directory)


MODELS: list[tuple[str, str, Callable[[Path], object], str]] = [
    ("099", "another model in the place of its own", other_model, "model_mismatch"),
    ("102", "no model", shutil.rmtree, "model_not_found"),
    ("102", "no weights", lambda folder: (folder / WEIGHTS_NAME).unlink(), "model_invalid"),
    ("102", "a cut graph", lambda folder: os.truncate(next(folder.rglob("*.bin")), 1000), "model_invalid"),
    ("102", "a card that is no JSON", lambda folder: (folder / CARD_NAME).write_bytes(b"{"), "model_invalid"),
]


@pytest.mark.parametrize("case", MODELS, ids=lambda case: f"{case[0]} {case[1]}")
def test_a_version_whose_model_is_damaged_is_refused(
    steady: Steady, case: tuple[str, str, Callable[[Path], None], str]
) -> None:
    _, _, change, code = case
    version = steady.copy(manifest())
    with damaged_model(steady, change):
        steady.point_at(version)  # the good one would be refused as well, had it to be loaded again
        eventually(lambda: metric(steady.server, REFUSED) == 1, "it is refused")
        lines = [line for line in steady.server.log.splitlines() if f"refused index version {version}: " in line]
        assert len(lines) == 1
        assert f" {version}: {code}: " in lines[0]
        steady.standing.assert_stands()
        steady.serve_good()


class Canary:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "names", [(WEIGHTS_NAME,), ("*.xml",), ("*.bin",), ("*.xml", "*.bin"), (GOLDEN_NAME,)], ids=str
)
def test_102_a_pickle_in_a_model_that_says_so_itself_is_refused_and_never_executed(
    steady: Steady, tmp_path: Path, names: tuple[str, ...]
) -> None:
    canary = tmp_path / "canary"
    source = steady.index.model_path(steady.index.manifest(steady.good).model_sha256)
    forged = Path(shutil.copytree(source, tmp_path / "model"))
    for name in names:
        for path in forged.rglob(name):
            path.write_bytes(pickle.dumps(Canary(canary)))
    files = {name: FileRecord.of(forged / name) for name in load_card(forged).files}
    pickle.loads(pickle.dumps(Canary(canary)))  # noqa: S301  # which is what the canary is for
    canary.rmdir()
    card = json.loads((forged / CARD_NAME).read_bytes())
    card["files"] = {name: asdict(record) for name, record in files.items()}
    (forged / CARD_NAME).write_text(json.dumps(card))
    shutil.copytree(forged, steady.index.model_path(card_sha256(forged)))
    version = steady.copy(
        manifest(model_sha256=card_sha256(forged), embedding_id=load_card(forged).embedding_id("int8"))
    )
    server, refused = steady.server, metric(steady.server, REFUSALS)
    steady.point_at(version)
    eventually(lambda: metric(server, REFUSALS) == refused + 1 or steady.serves(version), "it is refused or served")
    assert not canary.exists()
    if names == (WEIGHTS_NAME,):  # which OpenVINO does not read: it is the same graph
        assert steady.serves(version)
    else:
        assert f"refused index version {version}: " in server.log
    steady.serve_good()
    steady.standing.assert_stands()
    assert not canary.exists()


def test_102_a_model_of_another_architecture_is_refused(steady: Steady, tmp_path: Path) -> None:
    other = write_fake_model(tmp_path / "fake", dim=512)
    shutil.copytree(other, steady.index.model_path(card_sha256(other)))
    card = load_card(other)
    changes = {"model_sha256": card_sha256(other), "preprocessing_sha256": card.input.sha256}
    steady.assert_refused(steady.copy(manifest(**changes, embedding_id=card.embedding_id("fake"))), "precision_missing")
    steady.standing.assert_stands()


# Small galleries


def of_size(count: int) -> Change:
    """Keeps the first rows of a version."""

    def change(directory: Path) -> None:
        FaissStore.create(unit(np.eye(512))[:count]).write(directory / INDEX_NAME)
        (directory / ITEMS_NAME).unlink()
        items = [GalleryItem(row, f"a/{row}.jpg", "a", f"{row:064x}", b"x") for row in range(count)]
        write_items(directory / ITEMS_NAME, items)
        rows, inverse = unit(np.eye(512))[:count], np.eye(512, dtype=np.float32)
        (directory / CLASSES_NAME).write_bytes(rows.astype("<f4").tobytes())
        ClassStatistics(rows, inverse, np.ones(count, np.int64)).write(directory / CLASS_STATISTICS_NAME)
        edit(directory, count=count, gallery={"root": str(directory), "classes": min(count, 1), "skipped": 0})

    return change


@pytest.mark.parametrize("count", [0, 1], ids=["104 an empty gallery", "105 a gallery of one"])
def test_a_small_gallery_is_served(steady: Steady, count: int) -> None:
    with steady.serving(steady.copy(of_size(count))):
        assert steady.server.client.get("/readyz").status_code == 200
        for k in (1, 100):
            answer = steady.server.client.post("/search", params={"k": k}, files={"file": QUERY.read_bytes()})
            assert answer.status_code == 200
            found = answer.json()
            assert [hit["id"] for hit in found["results"]] == ["a/0.jpg"][:count]
            assert (found["nearest"] is None) == (found["decision"] is None) == (count == 0)
        assert steady.server.client.get("/gallery/classes").status_code == 200
        known = steady.server.client.post("/search", params={"class": "a"}, files={"file": QUERY.read_bytes()})
        assert known.status_code == (200 if count else 422)


# Swaps under load


@contextmanager
def searching(server: Server) -> Iterator[list[httpx.Response]]:
    """Inside, clients search without a pause; what they got is in the list afterwards, every one answered."""
    stop, answers = threading.Event(), [list[httpx.Response]() for _ in range(CLIENTS)]
    photo = QUERY.read_bytes()

    def keep_searching(found: list[httpx.Response]) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not stop.is_set():
                found.append(client.post("/search", params={"k": 3}, files={"file": photo}))

    clients = [threading.Thread(target=keep_searching, args=(found,)) for found in answers]
    for client in clients:
        client.start()
    told: list[httpx.Response] = []
    try:
        yield told
    finally:
        stop.set()
        for client in clients:
            client.join()
        told += [response for found in answers for response in found]
    assert len(told) > CLIENTS
    assert {response.status_code for response in told} == {200}


def versions_in(answers: list[httpx.Response]) -> set[str]:
    return {answer.json()["versions"]["index"] for answer in answers}


def test_107_bad_versions_under_load_change_no_answer(steady: Steady) -> None:
    expected = steady.standing.probe()[:3]
    with searching(steady.server) as answers:
        for change, told in ((header(20_001, "<B", 7), False), (header(8, "<q", 1 << 40), True)):
            steady.assert_refused(steady.copy(change, told=told), "index_invalid")
    steady.standing.assert_stands()
    assert versions_in(answers) == {steady.good}
    assert {tuple((hit["id"], hit["score"]) for hit in one.json()["results"]) for one in answers} == {tuple(expected)}


def test_108_of_many_swaps_at_once_the_last_one_wins(steady: Steady) -> None:
    versions = [steady.copy(manifest()) for _ in range(4)]
    with searching(steady.server) as answers:
        for version in versions * 5:
            steady.point_at(version)
        eventually(lambda: steady.serves(versions[-1]), "the last one is served")
        swaps = metric(steady.server, SWAPS)
        for _ in range(3):  # the same again is no swap
            steady.point_at(versions[-1])
            eventually(lambda: steady.serves(versions[-1]), "it is served")
        assert metric(steady.server, SWAPS) == swaps
        steady.serve_good()
    assert versions_in(answers) <= {steady.good, *versions}
    steady.standing.assert_stands()


def test_109_the_old_version_may_be_deleted_as_soon_as_the_new_one_is_served(steady: Steady) -> None:
    versions = [steady.copy(manifest()) for _ in range(4)]
    with searching(steady.server) as answers:
        for old, new in zip([None, *versions], [*versions, None], strict=True):
            steady.point_at(new or steady.good)
            eventually(partial(steady.serves, new or steady.good), "it is served")
            if old:
                shutil.rmtree(steady.index.path_of(old))
    assert versions_in(answers) <= {steady.good, *versions}
    steady.standing.assert_stands()


# Memory


def test_110_a_version_that_does_not_fit_into_memory_is_refused_before_it_is_read(steady: Steady) -> None:
    def claim_a_terabyte(directory: Path) -> None:
        files = json.loads((directory / MANIFEST_NAME).read_bytes())["files"]
        edit(directory, files={**files, INDEX_NAME: {**files[INDEX_NAME], "bytes": 1 << 40}})

    steady.assert_refused(steady.copy(claim_a_terabyte, told=False), "index_too_large")
    steady.standing.assert_stands()


@pytest.mark.parametrize(("retry_s", "loaded"), [(math.inf, False), (0, True)], ids=["110 at once", "110 at its time"])
def test_a_version_that_was_too_large_is_tried_again_and_loaded_when_there_is_memory(
    retry_s: float,
    loaded: bool,
    catalogue_index: IndexDirectory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(reloader, "RETRY_S", retry_s)
    server = Reloader(load_settings(index_dir=catalogue_index.root), Metrics())
    for free in (50 << 20, 1 << 30):
        monkeypatch.setattr(reloader, "available_bytes", lambda free=free: free)
        assert server.loaded is None
        server.look()
    refused = None if loaded else catalogue_index.current()
    assert (server.loaded is not None, server.refused_version) == (loaded, refused)
    assert "index_too_large: " in caplog.text
    assert "MiB of memory while it is loaded, and 50 MiB are free" in caplog.text


# Several servers


def test_111_all_servers_of_an_index_come_to_the_same_version(steady: Steady, tmp_path: Path) -> None:
    version = steady.copy(manifest())
    with running_server(steady.index.root, tmp_path / "log", RUNTIME="openvino") as second:
        with searching(second) as theirs, searching(steady.server) as ours:
            for served in (version, steady.good):
                steady.point_at(served)
                for server in (steady.server, second):
                    eventually(partial(serves, server, served), "both serve the same")
        assert versions_in(theirs) == versions_in(ours) == {steady.good, version}
    steady.standing.assert_stands()
