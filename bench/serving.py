"""A real server process to be measured."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from model.errors import CarsearchError

READY_S = 120.0


class ServerFailed(CarsearchError):
    """The server that was to be measured did not get ready, or refused what it was asked."""

    code = "server_failed"


@contextmanager
def running_server(index: Path, cores: int | None = None, **settings: str) -> Iterator[tuple[int, float]]:
    """Serves an index, held to some cores or to all; gives the port and the seconds from start to ready.

    `settings` are the server's, in capitals and without the prefix; those of the environment do not count. Raises
    ServerFailed.
    """
    port = _free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARSEARCH_")}
    environment = kept | {f"CARSEARCH_{name}": value for name, value in {"LOG_LEVEL": "warning", **settings}.items()}
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    held = ["taskset", "--cpu-list", ",".join(map(str, chosen))]
    command = [*held, sys.executable, "-m", "service.cli", "serve", "--index", str(index), "--port", str(port)]
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment)  # noqa: S603  # our own command line
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() - started > READY_S:
                raise ServerFailed("The server did not get ready; its lines above say why.")
            time.sleep(0.02)
        yield port, time.monotonic() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
    except httpx.TransportError:
        return False
