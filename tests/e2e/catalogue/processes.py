"""A request in a thread of its own, and the end of a server."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import httpx

from tests.support.servers import Server


def in_background(ask: Callable[[], httpx.Response]) -> "Future[httpx.Response]":
    """Asks in a thread of its own."""
    reply: Future[httpx.Response] = Future()

    def run() -> None:
        try:
            reply.set_result(ask())
        except httpx.HTTPError as problem:
            reply.set_exception(problem)

    threading.Thread(target=run, daemon=True).start()
    return reply


def ended_within(server: Server, seconds: float) -> int:
    """Waits for the end of a server and returns its exit status; fails when it takes longer."""
    started = time.monotonic()
    status = server.process.wait(seconds)
    assert time.monotonic() - started < seconds
    return status
