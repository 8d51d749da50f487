"""A server with one thing about its process changed before it starts: a limit, a clock, how long something takes."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.servers import Server, clean_environment, free_port, stop, wait_for


@contextmanager
def changed_server(
    change: str, index: Path, log_path: Path, path: str = "/readyz", **settings: str
) -> Iterator[Server]:
    """Runs `change`, lines of Python, and then `carsearch serve` in one process; waits until `path` answers 200."""
    port = free_port()
    command = [sys.executable, "-c", f"{change}\nfrom service.cli.main import main\nmain()"]
    environment = clean_environment(**settings)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, "serve", "--index", str(index), "--port", str(port)], env=environment, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            server = Server(url, process, log_path, client)
            wait_for(server, path)
            yield server
    finally:
        stop(process)


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
