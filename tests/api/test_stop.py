"""A server that stops answers what had arrived, even where it had no time to read it."""

import socket
import threading
from contextlib import ExitStack

import pytest

from indexer.versions import IndexDirectory
from service.http.limits import Limits
from service.http.server import listen, make_server
from tests.support.app import fake_settings
from tests.support.calls import eventually

WAIT_S = 30
CLIENTS = 20
REQUEST = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def test_requests_that_arrived_while_the_machine_was_busy_are_answered(
    monkeypatch: pytest.MonkeyPatch, fake_index: IndexDirectory
) -> None:
    monkeypatch.setattr("service.http.server.ARRIVED_S", 0)  # the time has passed before the server could read
    go_on, waiting = threading.Event(), threading.Event()
    with ExitStack() as stack:
        listener = stack.enter_context(listen("127.0.0.1", 0))
        server = make_server(fake_settings(fake_index.root), Limits())
        tick = server.on_tick

        async def held(counter: int) -> bool:
            waiting.set()
            go_on.wait(WAIT_S)  # holds up the event loop, as a machine that has no time for it
            return await tick(counter)

        monkeypatch.setattr(server, "on_tick", held)
        go_on.set()
        running = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        running.start()
        eventually(lambda: server.started, "the server listens")
        go_on.clear()
        waiting.clear()
        assert waiting.wait(WAIT_S)
        address = listener.getsockname()
        clients = [stack.enter_context(socket.create_connection(address, WAIT_S)) for _ in range(CLIENTS)]
        for client in clients:
            client.sendall(REQUEST)
        server.should_exit = True
        go_on.set()
        running.join(WAIT_S)
        assert [client.recv(1 << 16)[:12] for client in clients] == [b"HTTP/1.1 200"] * CLIENTS
