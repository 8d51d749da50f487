"""Starts and stops the server processes that are measured."""

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from model.errors import CarsearchError

READY_S = 600.0
"""A server of a million photos reads gigabytes before it is ready."""

STOP_S = 60.0


class ServerFailed(CarsearchError, code="server_failed"):
    """A server under measurement did not get ready, or refused a request."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers: its port on the loopback address, its process, and the seconds from start to ready."""

    port: int
    pid: int
    ready_s: float


@contextmanager
def running_server(
    index: Path, cores: int | None = None, log: Path | None = None, **settings: str
) -> Iterator[Running]:
    """Serves an index on the first `cores` cores, or on all.

    `settings` are the server's, in capitals and without the prefix; those of the environment are ignored. Raises
    ServerFailed.
    """
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    pinned = ["taskset", "--cpu-list", ",".join(map(str, chosen))]
    command = [*pinned, sys.executable, "-m", "carsearch", "serve", "--index", str(index)]
    variables = {f"CARSEARCH_{name}": value for name, value in settings.items()}
    with running_process(command, "/readyz", log, variables) as running:
        yield running


@contextmanager
def running_process(
    command: Sequence[str], ready_path: str, log: Path | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Runs a server's command with `--port` added until the block ends; it is ready when `ready_path` answers 200.

    Its output goes to the file `log`, or where ours goes. Raises ServerFailed.
    """
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARSEARCH_")}
    with (log or Path(os.devnull)).open("ab") as file:
        output = None if log is None else file
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: S603  # our own command line
            [*command, "--port", str(port)], env=kept | dict(variables or {}), stdout=output, stderr=output
        )
    try:
        while not _is_ready(port, ready_path):
            if process.poll() is not None or time.monotonic() - started > READY_S:
                raise ServerFailed(f"The server did not get ready; see {log or 'its output above'}.")
            time.sleep(0.02)
        yield Running(port, process.pid, time.monotonic() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A loopback port that nobody listens on.

    It lies below those that the kernel gives to outgoing connections, one of which could take it meanwhile.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)  # not by `random`, which tests seed alike in two processes
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _is_ready(port: int, path: str) -> bool:
    # Not httpx: each of its clients reads all certificates first, on the cores that the server starts on.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
