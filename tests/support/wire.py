"""A server in a thread of this process, for what concerns bytes on the wire: real sockets, short deadlines."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from service.http.limits import Limits
from service.http.server import listen, make_server
from tests.support.app import fake_settings
from tests.support.calls import eventually
from tests.support.without import take_the_guard_away

STOP_S = 40


@dataclass(frozen=True)
class WireServer:
    """A running server; `client` keeps its connections."""

    url: str
    client: httpx.Client = field(repr=False)


@contextmanager
def wire_server(index: Path, limits: Limits, **settings: Any) -> Iterator[WireServer]:
    """Serves an index of the fake runtime on a free loopback port until the block ends."""
    take_the_guard_away()  # where this is a negative control
    with listen("127.0.0.1", 0) as listener:
        server = make_server(fake_settings(index, **settings), limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="wire-server")
        thread.start()
        url = "http://{}:{}".format(*listener.getsockname()[:2])
        try:
            with httpx.Client(base_url=url, timeout=30) as client:
                eventually(lambda: client.get("/readyz").status_code == 200, "the server is ready")
                yield WireServer(url, client)
        finally:
            server.should_exit = True
            thread.join(STOP_S)
            assert not thread.is_alive(), "the server did not stop"
