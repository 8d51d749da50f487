"""A real server process on a free loopback port, ended by its pid."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

START_S = 60
PATIENCE_S = float(os.environ.get("PATIENCE_S", "60"))
"""How long a test waits for what must happen; less in negative controls, which wait in vain."""


@dataclass
class Server:
    """A running `carsearch serve`; `log` is what it has written."""

    url: str
    process: "subprocess.Popen[bytes]"
    log_path: Path
    client: httpx.Client = field(repr=False)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(**settings: str) -> dict[str, str]:
    """The environment without anybody's CARSEARCH_ variables, plus `settings` (names without the prefix)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARSEARCH_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **{f"CARSEARCH_{name}": value for name, value in settings.items()}}


@contextmanager
def running_server(
    index: Path, log_path: Path, wait_ready: bool = True, module: str = "service.cli", **settings: str
) -> Iterator[Server]:
    """Starts `carsearch serve --index ...`, waits until it is ready (or only live), and ends it with SIGTERM.

    `module` is one that does what `service.cli.main` does after it has made something worse.
    """
    port = free_port()
    # In a negative control a server that lacks one of its guards: see `tests.support.without`.
    module = "tests.support.without" if "WITHOUT_GUARD" in os.environ else module
    command = [sys.executable, "-m", module, "serve", "--index", str(index), "--port", str(port)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=clean_environment(**settings), stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            server = Server(url, process, log_path, client)
            wait_for(server, "/readyz" if wait_ready else "/livez")
            yield server
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process by SIGTERM, and by force when it does not end."""
    process.terminate()
    try:
        process.wait(timeout=40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(server: Server, path: str) -> None:
    """Waits until an address answers 200; fails with the server's log when it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            if server.client.get(path).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{path} never answered 200; the server wrote:\n{server.log}")


def run_cli(*arguments: str | Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Runs `carsearch ...` in a process of its own and returns what it printed; the terminal is 200 columns wide."""
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    environment = {**clean_environment(**settings), "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
