"""Requests and answers as bytes: refusals and their bodies, requests behind each other, offers to upgrade."""

import itertools
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from indexer.versions import IndexDirectory
from service.http.admission import FairShare
from service.http.limits import Limits
from tests.support.bodies import FORM, form
from tests.support.calls import assert_problem, metric
from tests.support.connections import answer, connect, ended, head
from tests.support.photos import car_photo
from tests.support.wire import WireServer, wire_server

BODY = form(car_photo(1, 0))
SEARCH = head(f"Content-Length: {len(BODY)}", path="/search?k=1")
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = 'carsearch_answers_total{code="overloaded",route="/search",status="429"}'
MANY = 40


@pytest.fixture(scope="module")
def wire(fake_index: IndexDirectory) -> Iterator[WireServer]:
    """A server with the usual limits."""
    with wire_server(fake_index.root, Limits()) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(fake_index: IndexDirectory) -> Iterator[WireServer]:
    """A server with little time for heads and next requests."""
    with wire_server(fake_index.root, Limits(head_deadline_s=0.5), keep_alive_s=0.5) as server:
        yield server


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server of this process has room for a search."""
    monkeypatch.setattr(FairShare, "has_room", lambda *_: False)


@pytest.fixture
def full(wire: WireServer, no_room: None) -> WireServer:
    """`wire` without room for any search."""
    del no_room
    return wire


def is_overloaded(connection: socket.socket) -> bool:
    status, body = answer(connection)
    return (status, '"overloaded"' in body) == (429, True)


def finds_its_car(connection: socket.socket) -> bool:
    status, body = answer(connection)
    return (status, json.loads(body)["nearest"]["class"]) == (200, "car 1")


def test_head_and_body_of_an_answer_come_in_one_piece(wire: WireServer) -> None:
    with connect(wire) as connection:
        for _ in range(20):
            connection.sendall(LIVE)
            assert connection.recv(65536).endswith(b'{"status":"ok"}')


# Refusals.


def test_a_refusal_is_a_whole_answer_counted_and_told_once(full: WireServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "carsearch")
    before = metric(full, REFUSED)
    refused = full.client.post("/search", content=BODY, headers={**FORM, "X-Request-Id": "mine"})
    assert_problem(refused, "overloaded")
    assert refused.headers["x-request-id"] == "mine"
    assert {"date", "content-length", "retry-after"} <= refused.headers.keys()
    assert metric(full, REFUSED) == before + 1
    (line,) = (record.getMessage() for record in caplog.records if " " in record.msg and "mine" in record.getMessage())
    assert line.startswith("mine /search 429 overloaded")


@pytest.mark.parametrize("cuts", [(), (0,), (100, 200)], ids=["whole", "after its head", "in parts"])
def test_a_kept_connection_goes_on_after_a_refusal_however_the_body_comes(
    full: WireServer, cuts: tuple[int, ...]
) -> None:
    ends = [*cuts, len(BODY)]
    with connect(full) as connection:
        for _ in range(2):
            connection.sendall(SEARCH + BODY[: ends[0]])
            assert is_overloaded(connection)
            for start, end in itertools.pairwise(ends):
                connection.sendall(BODY[start:end])
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200


@pytest.mark.usefixtures("no_room")
def test_a_connection_whose_body_came_behind_its_refusal_is_not_kept_for_ever(hasty: WireServer) -> None:
    with connect(hasty) as connection:
        connection.sendall(SEARCH)
        assert is_overloaded(connection)
        connection.sendall(BODY)
        assert ended(connection)


@pytest.mark.parametrize("announced", ["Transfer-Encoding: chunked", "Content-Length: 5000000", "Connection: close"])
@pytest.mark.usefixtures("no_room")
def test_a_body_without_an_end_in_sight_ends_the_connection(hasty: WireServer, announced: str) -> None:
    before = metric(hasty, REFUSED)
    with connect(hasty) as connection:
        connection.sendall(head(announced))
        assert is_overloaded(connection)
        assert ended(connection)
    assert metric(hasty, REFUSED) == before + 1


def test_many_refusals_at_once_are_as_many_answers(full: WireServer) -> None:
    before = metric(full, REFUSED)
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(full)) for _ in range(MANY)]
        for connection in connections:
            connection.sendall(SEARCH + BODY)
        assert all(is_overloaded(connection) for connection in connections)
    assert metric(full, REFUSED) == before + MANY
    assert httpx.get(f"{full.url}/readyz").status_code == 200


# Requests behind each other, and together.


def test_requests_behind_each_other_are_answered_in_their_order(full: WireServer) -> None:
    with connect(full) as connection, connection.makefile("rb") as stream:
        connection.sendall(LIVE + SEARCH + BODY + SEARCH + BODY + LIVE)
        statuses = []
        for _ in range(4):
            statuses.append(int(stream.readline().split()[1]))
            lengths = [int(line.split()[1]) for line in iter(stream.readline, b"\r\n") if b"content-length" in line]
            stream.read(*lengths)
    assert statuses == [200, 429, 429, 200]


def test_searches_that_arrive_together_are_all_answered(wire: WireServer) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(wire)) for _ in range(MANY)]
        for connection in connections:
            connection.sendall(SEARCH + BODY)
        assert all(finds_its_car(connection) for connection in connections)


def test_a_body_that_nobody_reads_is_not_taken_for_the_next_request(wire: WireServer) -> None:
    get = b"GET /none HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    with connect(wire) as connection:
        connection.sendall(get + BODY + SEARCH + BODY)
        assert answer(connection)[0] == 404
        assert finds_its_car(connection)


@pytest.mark.parametrize("length", ["-1", "abc", "1, 2", "9" * 5000])
def test_a_content_length_that_is_no_number_is_refused(wire: WireServer, length: str) -> None:
    with connect(wire) as connection:
        connection.sendall(head(f"Content-Length: {length}"))
        assert answer(connection)[0] == 400


def test_068_a_key_with_a_control_character_is_no_header(wire: WireServer) -> None:
    with connect(wire) as connection:
        connection.sendall(head("X-API-Key: \x01", "Content-Length: 0"))
        assert answer(connection)[0] == 400


# Offers to upgrade.

OFFER = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("cut", [None, 0, 10, 100], ids=lambda cut: f"cut at {cut}")
@pytest.mark.parametrize(
    ("framing", "body"),
    [(f"Content-Length: {len(BODY)}", BODY), ("Transfer-Encoding: chunked", chunked(BODY))],
    ids=["of a length", "in chunks"],
)
def test_an_upload_that_offers_http_2_finds_its_car_and_the_connection_goes_on(
    wire: WireServer, framing: str, body: bytes, cut: int | None
) -> None:
    request = head(framing, *OFFER, path="/search?k=1") + body
    place = len(request) if cut is None else len(request) - len(body) + cut
    with connect(wire) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request[:place])
        time.sleep(0.01)  # so that the parts do not come together
        connection.sendall(request[place:])
        assert finds_its_car(connection)
        connection.sendall(SEARCH + BODY)
        assert finds_its_car(connection)


def test_a_request_without_a_body_that_offers_http_2_is_answered(wire: WireServer) -> None:
    offering = "\r\n".join(("GET /livez HTTP/1.1", "Host: x", *OFFER, "", "")).encode()
    with connect(wire) as connection:
        for request in (offering, LIVE):
            connection.sendall(request)
            assert answer(connection) == (200, '{"status":"ok"}')
