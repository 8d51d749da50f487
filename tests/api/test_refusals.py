"""Searches that are refused from their headers: answered without a task, and in all else as any other request."""

import asyncio
import itertools
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from service.http.drain import Drain
from service.http.guard import Guard
from service.http.shares import Shares
from service.http.turns import Turns

from indexer.versions import IndexDirectory
from service.http.errors import RETRY_AFTER_S
from service.observability.metrics import Metrics
from service.observability.tracing import Tracing
from service.settings import load_settings
from tests.support.bodies import FORM, form
from tests.support.calls import assert_problem, eventually, metric
from tests.support.connections import answer, connect, head
from tests.support.photos import car_photo
from tests.support.servers import Server, running_server

FULL = "tests.soak.full_server"
BODY = form(car_photo())
SEARCH = head(f"Content-Length: {len(BODY)}")
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = 'carsearch_answers_total{code="overloaded",route="/search",status="429"}'


@pytest.fixture(scope="module", params=["", "192.0.2.1"], ids=["direct", "behind a proxy"])
def full(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory
) -> Iterator[Server]:
    """A server that has no room for any search; with a proxy that is believed refusals have a task."""
    settings = {"HEAD_DEADLINE_S": "3"} | ({"TRUSTED_PROXIES": request.param} if request.param else {})
    with running_server(real_index.root, tmp_path_factory.mktemp("full") / "log", True, FULL, **settings) as server:
        yield server


def overloaded(connection: socket.socket) -> bool:
    status, body = answer(connection)
    return (status, '"overloaded"' in body) == (429, True)


def test_a_refusal_is_a_whole_answer_counted_and_told_once(full: Server) -> None:
    before = metric(full, REFUSED)
    refused = full.client.post("/search", content=BODY, headers={**FORM, "X-Request-Id": "mine"})
    assert_problem(refused, "overloaded")
    assert int(refused.headers["retry-after"]) == RETRY_AFTER_S["overloaded"]
    assert (refused.headers["x-request-id"], refused.headers["server"]) == ("mine", "uvicorn")
    assert {"date", "content-length"} <= refused.headers.keys()
    assert metric(full, REFUSED) == before + 1
    (line,) = (line for line in full.log.splitlines() if " mine " in line)
    assert "/search 429 overloaded" in line


@pytest.mark.parametrize("cuts", [(), (0,), (100, 200)], ids=["whole", "after its head", "in parts"])
def test_a_kept_connection_goes_on_after_a_refusal_however_the_body_comes(full: Server, cuts: tuple[int, ...]) -> None:
    ends = [*cuts, len(BODY)]
    with connect(full) as connection:
        for _ in range(2):
            connection.sendall(SEARCH + BODY[: ends[0]])
            assert overloaded(connection)
            for start, end in itertools.pairwise(ends):
                connection.sendall(BODY[start:end])
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200


def test_a_connection_whose_body_came_behind_its_refusal_is_not_kept_for_ever(full: Server) -> None:
    with connect(full) as connection:
        connection.sendall(SEARCH)
        assert overloaded(connection)
        connection.sendall(BODY)
        assert connection.recv(1) == b""  # after the deadline of a head; the test itself would give up later


def test_requests_behind_each_other_are_answered_in_their_order(full: Server) -> None:
    with connect(full) as connection, connection.makefile("rb") as stream:
        connection.sendall(LIVE + SEARCH + BODY + SEARCH + BODY + LIVE)
        statuses = []
        for _ in range(4):
            statuses.append(int(stream.readline().split()[1]))
            lengths = [int(line.split()[1]) for line in iter(stream.readline, b"\r\n") if b"content-length" in line]
            stream.read(*lengths)
    assert statuses == [200, 429, 429, 200]


@pytest.mark.parametrize("announced", ["Transfer-Encoding: chunked", "Content-Length: 20000000", "Connection: close"])
def test_a_body_without_an_end_in_sight_ends_the_connection(full: Server, announced: str) -> None:
    before = metric(full, REFUSED)
    closing = announced.startswith("Connection")
    with connect(full) as connection:
        connection.sendall(
            SEARCH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + BODY if closing else head(announced)
        )
        assert overloaded(connection)
        assert connection.recv(1) == b""
    assert metric(full, REFUSED) == before + 1


def test_a_client_that_sends_all_of_a_large_photo_before_it_reads_still_gets_the_refusal(full: Server) -> None:
    large = form(bytes(5_000_000))
    with connect(full) as connection:
        connection.sendall(head(f"Content-Length: {len(large)}") + large)
        assert overloaded(connection)
        assert connection.recv(1) == b""


def test_a_client_that_reads_while_it_sends_need_not_send_a_large_photo(full: Server) -> None:
    before = metric(full, REFUSED)
    with connect(full) as connection:
        connection.sendall(head("Content-Length: 5000000") + bytes(10_000))
        assert overloaded(connection)
        assert connection.recv(1) == b""  # and no second answer, to what may look like a request
    assert metric(full, REFUSED) == before + 1


def test_many_refusals_at_once_are_as_many_lines(full: Server) -> None:
    before = metric(full, REFUSED)
    connections = [connect(full) for _ in range(40)]
    for number, connection in enumerate(connections):
        connection.sendall(SEARCH.replace(b"\r\n\r\n", f"\r\nX-Request-Id: many-{number}\r\n\r\n".encode()) + BODY)
    for connection in connections:
        assert overloaded(connection)
        connection.close()
    assert metric(full, REFUSED) == before + 40
    eventually(lambda: sum(" many-" in line for line in full.log.splitlines()) == 40, "each has its line")
    assert httpx.get(f"{full.url}/readyz").status_code == 200


class _Crowded(Turns):
    """As if uploads always waited for their turn."""

    crowded = True


async def _rests(monkeypatch: pytest.MonkeyPatch, turns_s: list[float], turns: Turns) -> list[float]:
    """How long the loop rests when two searches are refused in each of some turns that take so long."""
    now, rests = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        now[0] += seconds

    guard = Guard(_never, load_settings(), Metrics(), Drain(), Tracing(), Shares(0))
    guard.turns = turns
    monkeypatch.setattr("service.http.guard.time.monotonic", lambda: now[0])
    monkeypatch.setattr("service.http.guard.time.sleep", sleep)
    for turn_s in turns_s:
        for _ in range(2):
            scope = {"path": "/search", "method": "POST", "headers": [], "client": ("10.0.0.1", 1)}
            assert guard.refuse(scope) is not None
        now[0] += turn_s
        for _ in range(3):
            await asyncio.sleep(0)
    return rests


def test_the_loop_rests_once_for_all_that_are_refused_together_and_as_long_as_its_round_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests = asyncio.run(_rests(monkeypatch, [0.0, 0.01, 0.03, 0.1, 0.0], Turns()))
    assert rests == pytest.approx([0.0, 0.03, 0.01, 0.0, 0.04])


def test_the_loop_does_not_rest_while_uploads_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(_rests(monkeypatch, [0.0, 0.01, 0.03], _Crowded())) == []


async def _never(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError


async def _refusals(places: Shares, arrived_bytes: int) -> tuple[list[bool], int]:
    """Of five searches that come in one turn, which are refused; and the promises that are left two turns later."""
    guard = Guard(_never, load_settings(), Metrics(), Drain(), Tracing(), places)
    refused = []
    for number in range(5):
        headers = [(b"content-length", b"100")]
        scope = {"path": "/search", "method": "POST", "headers": headers, "client": (f"10.0.0.{number}", 1)}
        refused.append(guard.refuse(scope, arrived_bytes) is not None)
    for _ in range(3):
        await asyncio.sleep(0)
    return refused, places.promised


def test_searches_that_come_together_are_promised_no_more_places_than_there_are() -> None:
    assert asyncio.run(_refusals(Shares(3), 100)) == ([False, False, False, True, True], 0)


def test_a_search_whose_body_is_still_to_come_is_promised_nothing() -> None:
    assert asyncio.run(_refusals(Shares(3), 99)) == ([False] * 5, 0)
