"""A real server process on a free loopback port, ended by its pid."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.serving import free_port
from indexer.versions import IndexDirectory
from model.errors import CarsearchError

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


def clean_environment(**settings: str) -> dict[str, str]:
    """The environment without anybody's CARSEARCH_ variables, plus `settings` (names without the prefix)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARSEARCH_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **{f"CARSEARCH_{name}": value for name, value in settings.items()}}


@contextmanager
def running_server(
    index: Path, log_path: Path, wait_ready: bool = True, module: str = "carsearch", **settings: str
) -> Iterator[Server]:
    """Starts `carsearch serve --index ...`, waits until it is ready (or only live), and ends it with SIGTERM.

    `module` is one that does what `service.cli.main` does after it has made something worse.
    """
    # In a negative control a server that lacks one of its guards: see `tests.support.without`.
    module = "tests.support.without" if "WITHOUT_GUARD" in os.environ else module
    with _serving(["-m", module], index, log_path, "/readyz" if wait_ready else "/livez", settings) as server:
        yield server


@contextmanager
def changed_server(
    change: str, index: Path, log_path: Path, path: str = "/readyz", **settings: str
) -> Iterator[Server]:
    """A server whose process runs `change`, lines of Python, before it serves; waits until `path` answers 200."""
    guard = "from tests.support.without import take_the_guard_away\ntake_the_guard_away()"
    program = f"{change}\n{guard}\nfrom service.cli.main import main\nmain()"
    with _serving(["-c", program], index, log_path, path, settings) as server:
        yield server


def with_limits(**limits: float) -> str:
    """The change of a server that has other limits than those of `service.http.limits`."""
    return f"import functools, service.http.server as s\ns.Limits = functools.partial(s.Limits, **{limits!r})"


@contextmanager
def _serving(program: list[str], index: Path, log_path: Path, path: str, settings: dict[str, str]) -> Iterator[Server]:
    port = free_port()
    if _is_fake(index):
        settings = {"RUNTIME": "fake", **settings}
    command = [sys.executable, *program, "serve", "--index", str(index), "--port", str(port)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=clean_environment(**settings), stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            server = Server(url, process, log_path, client)
            wait_for(server, path)
            yield server
    finally:
        stop(process)


def _is_fake(index: Path) -> bool:
    """Whether an index is of the fake runtime, which a server does not choose by itself."""
    directory = IndexDirectory(index)
    try:
        return directory.manifest(directory.current()).model_name == "fake"
    except CarsearchError:
        return False


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
    command = [sys.executable, "-m", "carsearch", *map(str, arguments)]
    environment = {**clean_environment(**settings), "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
