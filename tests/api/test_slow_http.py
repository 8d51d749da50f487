"""Clients that are slow on purpose hold a connection for a time that is known, and nobody else up."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from indexer.versions import IndexDirectory
from service.http.limits import Limits
from tests.support.bodies import form
from tests.support.calls import at_work, eventually, metric, search
from tests.support.connections import answer, connect, ended, head
from tests.support.photos import car_photo
from tests.support.servers import PATIENCE_S
from tests.support.ways import WAYS, upload_by
from tests.support.wire import WireServer, wire_server

LIMITS = Limits(head_deadline_s=0.5, write_deadline_s=0.3, upload_deadline_s=600, upload_grace_s=0.5)
UPLOAD_TIMEOUT = 'carsearch_answers_total{code="upload_timeout",route="/search",status="408"}'
SLOW_CLIENTS = 500
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def impatient(fake_index: IndexDirectory) -> Iterator[WireServer]:
    """A server that waits half a second for heads and uploads, and less for clients to read."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4 * SLOW_CLIENTS if before[1] == resource.RLIM_INFINITY else min(4 * SLOW_CLIENTS, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, before[0]), before[1]))  # for both ends of the connections
    with wire_server(fake_index.root, LIMITS) as server:
        yield server
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(autouse=True)
def _unharmed(impatient: WireServer) -> Iterator[None]:
    """Whatever a client did, the next one is answered."""
    yield
    assert search(impatient, car_photo(0, 0), k=1)["nearest"]["score"] > 0.999


@pytest.mark.parametrize("begun", [b"", b"P", b"POST /search HTTP/1.1\r\nHost: x\r\n"])
def test_062_a_head_that_does_not_come_ends_the_connection(impatient: WireServer, begun: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(begun)
        assert ended(connection)


def test_062_a_head_that_drips_ends_the_connection_all_the_same(impatient: WireServer) -> None:
    with connect(impatient) as connection:
        connection.settimeout(0.02)
        for byte in head("X-Slow: " + "x" * 1000):
            try:
                connection.sendall(bytes([byte]))
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            raise AssertionError("a head of 1,000 bytes at 50 bytes a second was waited for")


def test_062_a_second_head_that_does_not_come_ends_the_connection(impatient: WireServer) -> None:
    body = form(car_photo())
    with connect(impatient) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}") + body)
        assert answer(connection)[0] == 200
        connection.sendall(b"POST /se")
        assert ended(connection)


def test_a_connection_waits_longer_for_a_next_request_than_for_a_head(impatient: WireServer) -> None:
    with connect(impatient) as connection:
        for _ in range(2):
            connection.sendall(LIVE)
            assert answer(connection)[0] == 200
            time.sleep(3 * LIMITS.head_deadline_s)
        connection.sendall(b"GET /li")
        assert ended(connection)


def test_a_connection_that_has_waited_long_enough_is_closed(fake_index: IndexDirectory) -> None:
    with wire_server(fake_index.root, Limits(), keep_alive_s=0.2) as server, connect(server) as connection:
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200
        assert ended(connection)


def test_062_063_five_hundred_slow_heads_and_bodies_hold_nobody_up(impatient: WireServer) -> None:
    before = metric(impatient, UPLOAD_TIMEOUT)
    with ExitStack() as open_ones:
        slow = []
        for number in range(SLOW_CLIENTS):
            slow.append(open_ones.enter_context(connect(impatient)))
            slow[-1].sendall(head("Content-Length: 100000") if number % 2 else b"POST /search HT")
        for shot in range(4):
            assert search(impatient, car_photo(1, shot), k=1)["results"]
        assert at_work(impatient) == 0
        for begun, upload in zip(slow[::2], slow[1::2], strict=True):
            assert ended(begun)
            assert answer(upload)[0] == 408
    eventually(lambda: metric(impatient, UPLOAD_TIMEOUT) == before + SLOW_CLIENTS // 2, "the slow bodies are counted")


def test_063_an_upload_below_the_lowest_rate_is_cut_off_before_its_deadline(impatient: WireServer) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(impatient)) for _ in WAYS]
        for connection, way in zip(connections, WAYS, strict=True):
            path, kind, body = upload_by(way, car_photo())
            connection.sendall(head("Content-Length: 100000", path=path, kind=kind) + body[:2])
        for connection in connections:
            status, told = answer(connection)
            assert (status, '"upload_timeout"' in told) == (408, True)
            assert ended(connection)


def test_064_who_does_not_read_is_broken_off(impatient: WireServer) -> None:
    address = urlsplit(impatient.url)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((address.hostname, address.port))
        deaf.sendall(LIVE.replace(b"/livez", b"/static-offline-docs/swagger-ui-bundle.js") * 32)  # 45 MB of answers
        deadline = time.monotonic() + PATIENCE_S / 2
        while time.monotonic() < deadline:
            try:
                deaf.sendall(b"\r\n")
            except ConnectionError:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the server went on answering somebody who does not read")


def test_064_who_asks_and_asks_without_reading_is_broken_off(impatient: WireServer) -> None:
    with connect(impatient) as greedy, pytest.raises(ConnectionError):
        greedy.sendall(LIVE * 1_000_000)


def test_064_as_many_requests_in_one_go_as_may_wait_are_answered(impatient: WireServer) -> None:
    with connect(impatient) as connection:
        connection.sendall(LIVE * LIMITS.pipelined_requests)
        answered = b""
        while answered.count(b"HTTP/1.1 200 OK\r\n") < LIMITS.pipelined_requests:
            more = connection.recv(65536)
            assert more, answered
            answered += more


def test_an_upload_that_nobody_reads_and_that_stalls_ends_its_connection(impatient: WireServer) -> None:
    with connect(impatient) as connection:
        connection.sendall(LIVE.replace(b"\r\n\r\n", b"\r\nContent-Length: 1000\r\n\r\n") + b"some")
        assert answer(connection)[0] == 200
        assert ended(connection)
