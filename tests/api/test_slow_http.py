"""Clients that are slow on purpose hold a connection for a time that is known, and nobody else up."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bench.procfs import resident_bytes
from indexer.versions import IndexDirectory
from service.http.protocol import MAX_PIPELINED
from tests.support.bodies import form
from tests.support.calls import assert_unharmed, at_work, eventually, metric, search
from tests.support.connections import answer, connect, head
from tests.support.photos import car_photo
from tests.support.servers import PATIENCE_S, Server, running_server


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory) -> Iterator[Server]:
    """A server that waits one second for heads and for clients to read."""
    log = tmp_path_factory.mktemp("impatient") / "log"
    with running_server(real_index.root, log, HEAD_DEADLINE_S="1", WRITE_DEADLINE_S="1", BODY_DEADLINE_S="8") as server:
        yield server


def ended(connection: socket.socket) -> bool:
    """Whether the server ends the connection, without a byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("begun", [b"", b"P", b"POST /search HTTP/1.1\r\nHost: x\r\n"])
def test_062_a_head_that_does_not_come_ends_the_connection(impatient: Server, begun: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(begun)
        assert ended(connection)
    assert_unharmed(impatient, impatient.process.pid)


def test_062_a_head_that_drips_ends_the_connection_all_the_same(impatient: Server) -> None:
    with connect(impatient) as connection:
        connection.settimeout(0.1)
        for byte in head("X-Slow: " + "x" * 200):
            try:
                connection.sendall(bytes([byte]))
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            raise AssertionError("a head of 200 bytes at 10 bytes a second was waited for")


def test_a_second_head_that_does_not_come_ends_the_connection(impatient: Server) -> None:
    body = form(car_photo())
    with connect(impatient) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}") + body)
        assert answer(connection)[0] == 200
        connection.sendall(b"POST /se")
        assert ended(connection)


def test_062_063_five_hundred_slow_heads_and_bodies_hold_nobody_up(impatient: Server) -> None:
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(connect(impatient)) for _ in range(500)]
        for number, connection in enumerate(slow):
            connection.sendall(head("Content-Length: 100000") if number % 2 else b"POST /search HT")
        for shot in range(4):
            assert search(impatient, car_photo(1, shot), k=1)["results"]
        assert at_work(impatient) == 0
        for connection in slow:
            connection.settimeout(20)
            assert connection.recv(1) in (b"", b"H")  # without a word, or with 408
    series = 'carsearch_answers_total{code="upload_timeout",route="/search",status="408"}'
    eventually(lambda: metric(impatient, series) >= 250, "the slow bodies are counted")
    assert_unharmed(impatient, impatient.process.pid)


def test_063_an_upload_below_the_lowest_rate_is_cut_off_before_its_deadline(impatient: Server) -> None:
    started = time.monotonic()
    with connect(impatient) as connection:
        connection.sendall(head("Content-Length: 100000") + b"--")
        status, body = answer(connection)
    assert (status, '"upload_timeout"' in body) == (408, True)
    assert time.monotonic() - started < 8  # after the five seconds of grace


def test_064_who_does_not_read_is_broken_off(impatient: Server) -> None:
    address = impatient.url.removeprefix("http://").split(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((address[0], int(address[1])))
        deaf.settimeout(0.2)
        asking = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 32  # 45 MB of answers
        deaf.sendall(asking)
        deadline = time.monotonic() + PATIENCE_S / 2
        while time.monotonic() < deadline:
            try:
                deaf.sendall(b"\r\n")
            except ConnectionError:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the server went on answering somebody who does not read")
    assert_unharmed(impatient, impatient.process.pid)


def test_a_refusal_reaches_a_client_that_is_still_sending(impatient: Server) -> None:
    with connect(impatient) as connection:
        connection.sendall(head("Content-Length: 20000000"))
        connection.sendall(bytes(200_000))  # what was on its way when the answer came does not reset the connection
        status, body = answer(connection)
        assert (status, '"payload_too_large"' in body) == (413, True)
    assert_unharmed(impatient, impatient.process.pid)


def test_a_body_that_nobody_reads_is_not_taken_for_the_next_request(impatient: Server) -> None:
    body = form(car_photo())
    get = f"GET /none HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with connect(impatient) as connection:
        connection.sendall(get + body + head(f"Content-Length: {len(body)}") + body)
        assert answer(connection)[0] == 404
        assert answer(connection)[0] == 200


def test_064_who_asks_and_asks_without_reading_is_broken_off_before_it_fills_the_memory(impatient: Server) -> None:
    before, cut_off = resident_bytes(impatient.process.pid), False
    with connect(impatient) as greedy:
        try:
            for _ in range(1000):
                greedy.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        except ConnectionError:
            cut_off = True
    assert cut_off
    assert resident_bytes(impatient.process.pid) < before + 20_000_000
    assert_unharmed(impatient, impatient.process.pid)


def test_064_as_many_requests_in_one_go_as_may_wait_are_answered(impatient: Server) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * MAX_PIPELINED)
        answered = b""
        while more := connection.recv(65536):  # until the deadline for the next head
            answered += more
    assert answered.count(b"HTTP/1.1 200 OK\r\n") == MAX_PIPELINED
