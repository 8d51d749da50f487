"""Cases 065 and 086 to 090 of the catalogue: searches that wait, that are given up, that fail together."""

import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.http.errors import RETRY_AFTER_S
from tests.e2e.catalogue.faulty_server import CROWDED, GATE, NO_MEMORY, POISON, WRONG_ROWS, picture
from tests.e2e.catalogue.pictures import PHOTO, QUERY, png
from tests.e2e.catalogue.standing import Standing
from tests.support.bodies import form
from tests.support.calls import assert_problem, at_work, eventually, metric, search
from tests.support.connections import answer, connect, head
from tests.support.photos import write_gallery
from tests.support.servers import Server, running_server

FAULTY = "tests.e2e.catalogue.faulty_server"
GONE = 'carsearch_answers_total{code="client_disconnected",route="/search",status="400"}'
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: whoever closes hangs up at once, whatever has not been sent or read."""

CLIENTS, CANCELLED = 32, 0.2
DECODED_S = 0.2
"""Some small pictures are decoded within milliseconds."""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that keeps the network from embedding."""
    path: Path = tmp_path_factory.mktemp("gate") / "closed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GATE, str(path))
        yield path


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, catalogue_index: IndexDirectory, gate: Path) -> Iterator[Standing]:
    """A server whose network fails on some pictures, with all of its threads begun."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "spool").mkdir()
    settings = {"SPOOL_DIR": str(folder / "spool"), "SEARCH_THREADS": "2"}
    with running_server(catalogue_index.root, folder / "log", True, FAULTY, **settings) as server:
        with held(server, gate), ThreadPoolExecutor(8) as clients:
            waiting(server, [QUERY.read_bytes()] * 8, clients)
            gate.unlink()
        yield Standing(server, folder / "spool")


@contextmanager
def held(server: Server, gate: Path, given: int = 2) -> "Iterator[list[Future[httpx.Response]]]":
    """The network is `given` searches and embeds none until the block ends; gives their answers then.

    One search is in a work thread, for it was alone. A second one is the batch that the embed thread hands over.
    """
    gate.touch()
    with ThreadPoolExecutor(given) as clients:
        try:
            first: list[Future[httpx.Response]] = []
            for _ in range(given):
                wanted = embedded(server) + 1
                first.append(clients.submit(post, server, QUERY.read_bytes()))
                eventually(partial(has_embedded, server, wanted), "the network is given a search")
            yield first
        finally:
            gate.unlink(missing_ok=True)


def post(server: Server, photo: bytes) -> httpx.Response:
    """A search over a connection of its own."""
    return httpx.post(f"{server.url}/search", params={"k": 1}, files={"file": photo}, timeout=60)


def waiting(server: Server, photos: list[bytes], clients: ThreadPoolExecutor) -> "list[Future[httpx.Response]]":
    """Searches behind those that are held; returns when all are there, decoded where a thread is free for that."""
    before = at_work(server)
    sent = [clients.submit(post, server, photo) for photo in photos]
    eventually(lambda: at_work(server) == before + len(photos), "all of them wait")
    time.sleep(DECODED_S)
    return sent


def embedded(server: Server) -> int:
    """Photos that the network was given so far."""
    return sum(map(int, re.findall(r"embedding (\d+) photos", server.log)))


def has_embedded(server: Server, photos: int) -> bool:
    """Whether the network was given so many photos."""
    return embedded(server) == photos


def failures(server: Server) -> float:
    """Answers of 5xx so far."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if "answers_total{" in line and 'status="5' in line)


@pytest.mark.parametrize(("threads", "given"), [("1", 1), ("2", 2)], ids=["086 before they are decoded", "086 decoded"])
def test_searches_that_wait_too_long_are_told_so_and_never_embedded(
    tmp_path: Path, catalogue_index: IndexDirectory, gate: Path, threads: str, given: int
) -> None:
    settings = {"SEARCH_THREADS": threads, "REQUEST_DEADLINE_S": "3"}
    with running_server(catalogue_index.root, tmp_path / "log", True, FAULTY, **settings) as server:
        before = embedded(server)
        with held(server, gate, given) as first, ThreadPoolExecutor(5) as clients:
            late = waiting(server, [QUERY.read_bytes()] * 5, clients)
            for one in (*late, *first):
                assert_problem(one.result(), "deadline_exceeded")
                assert int(one.result().headers["retry-after"]) == RETRY_AFTER_S[503]
        assert at_work(server) == 0
        assert search(server, png(PHOTO), k=1)["nearest"]["class"] == "plain"
        assert embedded(server) == before + given + 1


@pytest.mark.parametrize(
    ("fault", "code"), [(POISON, "internal"), (NO_MEMORY, "backend_unavailable")], ids=["088 a bug", "088 no memory"]
)
def test_one_photo_that_makes_its_batch_fail_fails_alone(
    faulty: Standing, gate: Path, fault: tuple[int, int, int], code: str
) -> None:
    server = faulty.server
    with held(server, gate) as first, ThreadPoolExecutor(8) as clients:
        sent = waiting(server, [png(PHOTO)] * 4 + [picture(fault)] + [png(PHOTO)] * 3, clients)
        gate.unlink()
        *good, bad = [*sent[:4], *sent[5:], sent[4]]
        assert [one.result().json()["nearest"]["class"] for one in good] == ["plain"] * 7
        assert [one.result().status_code for one in first] == [200, 200]
        assert_problem(bad.result(), code, "CUDA")
    company, alone = map(int, re.findall(r"fault in a batch of (\d+)", server.log)[-2:])
    assert company > alone == 1
    faulty.assert_stands()


@pytest.mark.parametrize("colour", WRONG_ROWS, ids=[f"089 {value}" for value in ("not a number", "infinite", "zero")])
def test_an_embedding_that_means_nothing_is_no_ranked_list(faulty: Standing, colour: tuple[int, int, int]) -> None:
    response = post(faulty.server, picture(colour))
    assert_problem(response, "embedding_invalid")
    json.loads(response.text, parse_constant=lambda word: pytest.fail(f"{word} in an answer"))
    faulty.assert_stands()


def test_090_a_device_without_memory_is_told_and_passes(faulty: Standing) -> None:
    response = post(faulty.server, picture(NO_MEMORY))
    assert_problem(response, "backend_unavailable", "CUDA")
    assert int(response.headers["retry-after"]) == RETRY_AFTER_S[503]
    assert "out of memory" in faulty.server.log
    assert search(faulty.server, png(PHOTO), k=1)["nearest"]["class"] == "plain"
    faulty.assert_stands()


def test_090_what_has_no_memory_together_is_embedded_one_by_one(faulty: Standing, gate: Path) -> None:
    with held(faulty.server, gate), ThreadPoolExecutor(4) as clients:
        sent = waiting(faulty.server, [picture(CROWDED)] * 4, clients)
        gate.unlink()
        assert [one.result().status_code for one in sent] == [200] * 4
    faulty.assert_stands()


def gone_in_its_headers(server: Server, _gate: Path) -> None:
    with connect(server) as connection:
        connection.sendall(head("Content-Length: 1000")[:40])


def gone_in_its_body(server: Server, _gate: Path) -> None:
    with connect(server) as connection:
        connection.sendall(head("Content-Length: 1000000") + form(QUERY.read_bytes())[:5000])


def gone_in_the_queue(server: Server, gate: Path) -> None:
    body = form(QUERY.read_bytes())
    with held(server, gate):
        connections = [connect(server) for _ in range(6)]
        for connection in connections:
            connection.sendall(head(f"Content-Length: {len(body)}") + body)
        eventually(lambda: at_work(server) == 8, "all of them wait")
        for connection in connections:
            connection.close()
        eventually(lambda: at_work(server) == 2, "none of them waits")


def gone_while_it_is_embedded(server: Server, gate: Path) -> None:
    body, gone, before = form(QUERY.read_bytes()), metric(server, GONE), embedded(server)
    gate.touch()
    with connect(server) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}") + body)
        eventually(lambda: embedded(server) == before + 1, "it is with the network")
    eventually(lambda: metric(server, GONE) == gone + 1, "it is counted before it has been embedded")
    gate.unlink()


def gone_while_it_reads(server: Server, _gate: Path) -> None:
    body = form(QUERY.read_bytes())
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.sendall(head(f"Content-Length: {len(body)}") + body)
        assert connection.recv(1) == b"H"


@pytest.mark.parametrize(
    ("go", "counted", "begun"),
    [
        (gone_in_its_headers, 0, 0),
        (gone_in_its_body, 1, 0),
        (gone_in_the_queue, 6, 2),
        (gone_while_it_is_embedded, 1, 1),
        (gone_while_it_reads, 0, 1),
    ],
    ids=lambda value: f"065 {value.__name__}" if callable(value) else "",
)
def test_a_client_may_go_at_any_time(faulty: Standing, gate: Path, go: object, counted: int, begun: int) -> None:
    server = faulty.server
    assert callable(go)
    before = metric(server, GONE), embedded(server), failures(server)
    go(server, gate)
    eventually(lambda: metric(server, GONE) == before[0] + counted, "those who went are counted")
    eventually(lambda: at_work(server) == 0, "nothing waits and nothing is worked on")
    assert (embedded(server), failures(server)) == (before[1] + begun, before[2])
    faulty.assert_stands()


def test_087_of_many_searches_at_once_with_some_given_up_each_finds_its_own_photo(
    tmp_path: Path, real_embedder: Embedder
) -> None:
    gallery = write_gallery(tmp_path / "gallery", classes=24, photos=10)
    index = IndexDirectory(tmp_path / "index")
    build_index(gallery, index, real_embedder)
    paths = sorted(gallery.rglob("*.jpg"))
    random.Random(87).shuffle(paths)
    patience = random.Random(88)
    given_up = {path for path in paths if patience.random() < CANCELLED}
    answered = threading.Semaphore(0)

    def ask(server: Server, path: Path) -> str:
        body = form(path.read_bytes())
        with connect(server) as connection:
            connection.sendall(head(f"Content-Length: {len(body)}") + body)
            if path in given_up:
                answered.acquire(timeout=1)  # until another has its answer: by then this one is queued, or embedded
                return ""
            status, text = answer(connection)
            answered.release()
        assert status == 200, text
        return str(json.loads(text)["nearest"]["id"])

    with running_server(index.root, tmp_path / "log", MAX_QUEUE="64") as server:
        before = failures(server)  # it was not ready at first
        with ThreadPoolExecutor(CLIENTS) as clients:
            found = list(clients.map(lambda path: ask(server, path), paths))
        eventually(lambda: at_work(server) == 0, "the threads are free")
        assert metric(server, GONE) > 0
        assert failures(server) == before
    expected = ["" if path in given_up else path.relative_to(gallery).as_posix() for path in paths]
    assert found == expected
    assert 0 < len(given_up) < len(paths) / 2
