"""HTTP/1.1 as the server speaks it, chunk by chunk, without sockets: heads, pipelines, offers to upgrade."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.http.limits import Limits
from service.http.protocol import LimitedHttpProtocol

QUIET_TURNS = 20
"""Turns of the event loop without a write after which whatever has come has been answered."""


class Recorder(asyncio.Transport):
    """A transport that notes each write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def resume_reading(self) -> None:
        """Whatever a test gives is read."""

    def pause_reading(self) -> None:
        """Whatever a test gives is read."""


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what has come."""
    body = b""
    more = True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    told = json.dumps({"method": scope["method"], "path": scope["path"], "body": body.decode("latin-1")}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
    await send({"type": "http.response.body", "body": told})


async def until_quiet(recorder: Recorder) -> None:
    quiet = 0
    while quiet < QUIET_TURNS:
        before = len(recorder.writes)
        await asyncio.sleep(0)
        quiet = quiet + 1 if len(recorder.writes) == before else 0


async def spoken(chunks: Sequence[bytes], limits: Limits) -> Recorder:
    protocol_class = cast(Any, partial(LimitedHttpProtocol, limits=limits))
    config = uvicorn.Config(echo, http=protocol_class, log_config=None, lifespan="off")
    config.load()
    recorder = Recorder()
    protocol = cast(Any, config.http_protocol_class)(config, ServerState(), {})
    protocol.connection_made(recorder)
    for chunk in filter(None, chunks):
        if not recorder.closed:
            protocol.data_received(chunk)
        await until_quiet(recorder)
    closed = recorder.closed
    protocol.connection_lost(None)
    recorder.closed = closed
    return recorder


def answered(*chunks: bytes, limits: Limits | None = None) -> Recorder:
    """What the protocol writes for what arrives in these chunks, and whether it then has closed the connection."""
    return asyncio.run(spoken(chunks, limits or Limits()))


def bodies(recorder: Recorder) -> list[dict[str, str]]:
    """The echoes in an open connection's answers."""
    assert not recorder.closed
    parts = b"".join(recorder.writes).split(b"HTTP/1.1 200 OK\r\n")[1:]
    return [json.loads(part.partition(b"\r\n\r\n")[2]) for part in parts]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


GET = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
NEXT = {"method": "GET", "path": "/next", "body": ""}


def test_head_and_body_of_an_answer_are_one_write() -> None:
    (written,) = answered(GET).writes
    assert written.startswith(b"HTTP/1.1 200")
    assert written.endswith(b'"body": ""}')


def test_a_connection_that_is_closed_after_its_answer_has_sent_it_first() -> None:
    recorder = answered(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert recorder.closed
    assert b"".join(recorder.writes).endswith(b'"body": ""}')


def test_a_head_without_an_end_is_refused() -> None:
    endless = [b"GET / HTTP/1.1\r\n", *[b"X-More: " + b"x" * 1000 + b"\r\n"] * 40]
    recorder = answered(*endless)
    assert recorder.closed
    assert b"".join(recorder.writes).startswith(b"HTTP/1.1 400")


def test_bodies_and_many_requests_do_not_count_as_a_head() -> None:
    upload = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 80000\r\n\r\n", b"a" * 40_000, b"a" * 40_000]
    recorder = answered(*upload, *[GET] * 40, *upload)
    assert len(bodies(recorder)) == 42


def test_more_requests_than_may_wait_end_the_connection() -> None:
    limits = Limits(pipelined_requests=4)
    assert bodies(answered(GET * 4, limits=limits)) == [NEXT] * 4
    assert answered(GET * 40, limits=limits).closed


@pytest.mark.parametrize("rubbish", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\r\nx\r\n\r\n"])
def test_what_is_no_http_1_is_refused(rubbish: bytes) -> None:
    recorder = answered(rubbish)
    assert recorder.closed
    assert b"".join(recorder.writes).startswith(b"HTTP/1.1 400")


# Offers to upgrade, as Java's HttpClient makes one with every first request.


BODY = b"a photo of a car" * 4
FRAMED = {
    "Content-Length": (b"Content-Length: %d\r\n" % len(BODY), BODY),
    "chunked": (
        b"Transfer-Encoding: chunked\r\n",
        b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in cut(BODY, [10])) + b"0\r\n\r\n",
    ),
    "no body": (b"", b""),
    "an empty body": (b"Content-Length: 0\r\n", b""),
}
"""Name -> headers and body as they are sent."""

OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
}


def offer(method: str, offered: str, framing: str) -> tuple[bytes, bytes, dict[str, str]]:
    """Head and body of a request that offers an upgrade, and the echo that it must get."""
    headers, body = FRAMED[framing]
    head = b"%s /search?k=1 HTTP/1.1\r\nHost: x\r\n%s%s\r\n" % (method.encode(), OFFERS[offered], headers)
    return head, body, {"method": method, "path": "/search", "body": BODY.decode() if body else ""}


@pytest.mark.parametrize("framing", FRAMED)
@pytest.mark.parametrize("offered", OFFERS)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_an_offer_to_upgrade_is_passed_over_and_the_connection_goes_on(method: str, offered: str, framing: str) -> None:
    head, body, expected = offer(method, offered, framing)
    assert bodies(answered(head + body, GET)) == [expected, NEXT]
    assert bodies(answered(head, body, GET)) == [expected, NEXT]
    assert bodies(answered((head + body) * 2 + GET)) == [expected, expected, NEXT]


@pytest.mark.parametrize("framing", FRAMED)
def test_an_offer_may_be_cut_at_every_place_of_its_head(framing: str) -> None:
    head, body, expected = offer("POST", "h2c", framing)
    for place in range(len(head) + 1):
        assert bodies(answered(*cut(head + body, [place]), GET)) == [expected, NEXT], place


def test_as_many_offers_in_one_go_as_may_wait_are_answered() -> None:
    head, body, expected = offer("POST", "h2c", "Content-Length")
    most = Limits().pipelined_requests
    assert bodies(answered((head + body) * most)) == [expected] * most
    assert answered((head + body) * 40 * most).closed


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: gzip\r\n",
        b"Content-Length: 5\r\n" * 2,
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_an_offer_whose_body_has_no_clear_end_is_refused(framing: bytes) -> None:
    recorder = answered(b"POST / HTTP/1.1\r\nHost: x\r\n" + OFFERS["h2c"] + framing + b"\r\nabcde")
    assert recorder.closed
    assert b"".join(recorder.writes).startswith(b"HTTP/1.1 400")


@settings(max_examples=100, deadline=None)
@given(
    framing=st.sampled_from(sorted(FRAMED)),
    offered=st.sampled_from(sorted(OFFERS)),
    requests=st.integers(1, 3),
    places=st.lists(st.integers(0, 2000), max_size=8),
)
def test_any_chunking_of_offers_and_other_requests_gives_the_same_answers(
    framing: str, offered: str, requests: int, places: list[int]
) -> None:
    head, body, expected = offer("POST", offered, framing)
    recorder = answered(*cut((head + body + GET) * requests, places))
    assert bodies(recorder) == [expected, NEXT] * requests
