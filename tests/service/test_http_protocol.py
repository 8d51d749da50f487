"""An answer leaves the process in one piece: what is killed between its header and its body cannot be asked again."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
import uvloop

from service.http_protocol import BoundedHttpProtocol


class Recorder(asyncio.Transport):
    """A transport that notes each write."""

    def __init__(self, connection: socket.socket | None = None) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2), "socket": connection})
        self.writes: list[bytes] = []
        self.closed = False

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
        """Not used."""

    def pause_reading(self) -> None:
        """Not used."""


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
