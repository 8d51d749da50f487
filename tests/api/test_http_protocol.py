"""An answer leaves the process in one piece: what is killed between its header and its body cannot be asked again."""

import asyncio
import gc
import socket
import struct
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.responses import Response

import service.http.protocol as wire
from service.http.protocol import BoundedHttpProtocol, Waste

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: whoever closes hangs up at once."""


class Recorder(asyncio.Transport):
    """A transport that notes each write."""

    def __init__(self, connection: socket.socket | None = None) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2), "socket": connection})
        self.writes: list[bytes] = []
        self.closed = False
        self.reads: list[bool] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Not used."""

    def resume_reading(self) -> None:
        self.reads.append(True)

    def pause_reading(self) -> None:
        self.reads.append(False)

    def write_eof(self) -> None:
        """Nothing follows; what comes is still read."""


async def app(_scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"whole"})


async def answer(*chunks: bytes) -> Recorder:
    """What the protocol writes for what arrives in these chunks."""
    config = uvicorn.Config(app, http=BoundedHttpProtocol, log_config=None)
    config.load()
    recorder = Recorder()
    protocol = BoundedHttpProtocol(config, uvicorn.server.ServerState(), {})
    protocol.connection_made(recorder)
    for chunk in chunks:
        if not recorder.closed:
            protocol.data_received(chunk)
        for _ in range(20):
            await asyncio.sleep(0)
    closed = recorder.closed
    protocol.connection_lost(None)  # which closes what is still open
    recorder.closed = closed
    return recorder


def test_header_and_body_are_one_write() -> None:
    recorder = asyncio.run(answer(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    (written,) = recorder.writes
    assert written.startswith(b"HTTP/1.1 200")
    assert written.endswith(b"\r\n\r\nwhole")


def test_a_connection_that_is_closed_after_its_answer_has_sent_it_first() -> None:
    recorder = asyncio.run(answer(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    assert recorder.closed
    assert b"".join(recorder.writes).endswith(b"\r\n\r\nwhole")


def test_a_head_without_an_end_is_refused() -> None:
    endless = [b"GET / HTTP/1.1\r\n", *[b"X-More: " + b"x" * 1000 + b"\r\n"] * 40]
    recorder = asyncio.run(answer(*endless))
    assert recorder.closed
    assert b"".join(recorder.writes).startswith(b"HTTP/1.1 400")


def test_bodies_and_many_requests_do_not_count_as_a_head() -> None:
    upload = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 80000\r\n\r\n", b"a" * 40_000, b"a" * 40_000]
    recorder = asyncio.run(answer(*upload, *[b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] * 40, *upload))
    assert not recorder.closed
    assert b"".join(recorder.writes).count(b"HTTP/1.1 200") == 42


async def silent(wait: Callable[[BoundedHttpProtocol], None], came: bytes) -> bool:
    """Whether a connection is closed at the end of its time when this has come and has not been read yet."""
    config = uvicorn.Config(app, http=BoundedHttpProtocol, log_config=None)
    config.load()
    client, server = socket.socketpair()
    with client, server:
        recorder = Recorder(server)
        protocol = BoundedHttpProtocol(config, uvicorn.server.ServerState(), {})
        protocol.connection_made(recorder)
        client.sendall(came)
        wait(protocol)
        closed = recorder.closed
        protocol.connection_lost(None)
    return closed


@pytest.mark.parametrize(
    "wait",
    [BoundedHttpProtocol.timeout_keep_alive_handler, BoundedHttpProtocol._head_is_too_late],
    ids=["between requests", "before the first"],
)
def test_a_connection_is_not_closed_over_a_request_that_has_just_come(
    wait: Callable[[BoundedHttpProtocol], None],
) -> None:
    assert not asyncio.run(silent(wait, b"GET / HTTP/1.1\r\n"))
    assert asyncio.run(silent(wait, b""))


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "wait",
    [BoundedHttpProtocol.timeout_keep_alive_handler, BoundedHttpProtocol._head_is_too_late],
    ids=["between requests", "before the first"],
)
def test_a_client_knows_at_once_that_its_silent_connection_is_closed(
    wait: Callable[[BoundedHttpProtocol], None], kind: str
) -> None:
    async def told() -> bytes:
        config = uvicorn.Config(app, http=BoundedHttpProtocol, log_config=None)
        config.load()
        client, server = socket.socketpair()
        client.setblocking(False)
        with client:
            protocol = BoundedHttpProtocol(config, uvicorn.server.ServerState(), {})
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, server)
            with pytest.raises(BlockingIOError):
                client.recv(1)
            wait(protocol)
            end = client.recv(1)  # in the same turn of the loop
            await asyncio.sleep(0.01)
        return end

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "uvloop" else None) as runner:
        assert runner.run(told()) == b""


UPLOAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5000000\r\n\r\n"


async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 429, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def lingering(amount: int, waste: Waste) -> tuple[list[bool], bool]:
    """When a connection ends with its answer: whether it is read from, then and later; whether so much more ends it."""
    config = uvicorn.Config(refuse, http=BoundedHttpProtocol, log_config=None)
    config.load()
    recorder = Recorder()
    protocol = type("Own", (BoundedHttpProtocol,), {"waste": waste})(config, uvicorn.server.ServerState(), {})
    protocol.connection_made(recorder)
    protocol.data_received(UPLOAD)
    await asyncio.sleep(0.01)
    assert b"".join(recorder.writes).startswith(b"HTTP/1.1 429")
    assert not recorder.closed
    protocol.data_received(bytes(amount))
    closed = recorder.closed
    protocol.connection_lost(None)
    return recorder.reads, closed


def test_after_an_answer_that_ends_the_connection_the_rest_is_awaited_and_then_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "PAUSE_S", 0.0)
    assert asyncio.run(lingering(5_000_000, Waste())) == ([False, True], False)
    assert asyncio.run(lingering(wire.LINGER_BYTES + 1, Waste())) == ([False, True], True)
    used_up = Waste()
    used_up.takes(100 * wire.WASTE_BYTES)
    assert asyncio.run(lingering(1, used_up)) == ([False, True], True)


def test_what_is_thrown_away_is_bounded_for_all_connections_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now, mib = [100.0], 1 << 20
    monkeypatch.setattr("service.http.protocol.time.monotonic", lambda: now[0])
    waste = Waste()  # 16 at once, and the whole of a part of which there was room for some
    assert [waste.takes(10 * mib), waste.takes(10 * mib), waste.takes(1)] == [True, True, False]
    now[0] += 0.25  # 8 more, of which 4 were owed
    assert [waste.takes(4 * mib), waste.takes(1)] == [True, False]
    now[0] += 3600
    assert [waste.takes(16 * mib), waste.takes(1)] == [True, False]


class _Refusing:
    """An app that refuses one address from its headers, as the guard does."""

    def refuse(self, scope: Any, _arrived_bytes: int) -> Response | None:
        return Response(b"no", 429, headers={"connection": "close"}) if scope["path"] == "/full" else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)


async def left_over(request: bytes, resets: bool) -> int:
    """Of three connections that ask this and end, how many still exist when nobody has looked for cycles."""
    config = uvicorn.Config(_Refusing(), http=BoundedHttpProtocol, log_config=None, lifespan="off")
    config.load()
    config.loaded_app = _Refusing()  # as it is where no proxy is believed
    made: list[weakref.ref[BoundedHttpProtocol]] = []

    def protocol() -> BoundedHttpProtocol:
        one = BoundedHttpProtocol(config, uvicorn.server.ServerState(), {})
        made.append(weakref.ref(one))
        return one

    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0)
    for _ in range(3):
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, request)
            assert await loop.sock_recv(client, 9) == b"HTTP/1.1 "
            if resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await asyncio.sleep(0.05)
    server.close()
    return sum(one() is not None for one in made)


@pytest.mark.parametrize("resets", [False, True], ids=["goes", "resets"])
@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", UPLOAD.replace(b"/", b"/full", 1)], ids=["answered", "refused"]
)
def test_a_connection_that_has_ended_leaves_nothing_for_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch, request_: bytes, resets: bool
) -> None:
    monkeypatch.setattr(wire, "PAUSE_S", 0.0)
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(left_over(request_, resets)) == 0
    finally:
        gc.enable()
