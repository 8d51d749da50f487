"""A real nginx on a free loopback port, with the templates and the values that docker-compose.yml gives the container.

Only what a test cannot have is exchanged: the ports, the place to write to, the one name that stands for all replicas,
in whose stead each server has its own line since Debian's nginx is too old for "resolve", and the limits of a client,
since all clients of a test share one address. Tests of these limits name theirs.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.serving import free_port
from tests.deploy.compose import ROOT, config

TEMPLATES = ROOT / "docker" / "nginx"
SUFFIX = ".template"
VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")
NAME = "search:8000 resolve"
START_S = 20
UPSTREAMS = ("SEARCH_SERVERS", "UPSTREAM_SERVERS")
UNLIMITED = {"PROXY_RATE": "1000000r/s", "PROXY_BURST": "1000000", "PROXY_CONNECTIONS": "65535"}
"""Limits of a client that no test reaches; nginx takes no more connections than 65535."""

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

Edit = Callable[[str], str]


@dataclass
class Nginx:
    """A running nginx; `log` are its whole lines, one a request."""

    port: int
    process: "subprocess.Popen[bytes]"
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "stdout").read_text().split("\n")[:-1]]

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()


@cache
def compose_values() -> dict[str, str]:
    """What docker-compose.yml hands to the proxy when nothing is configured."""
    values: dict[str, str] = config()["services"]["proxy"]["environment"]
    return values


def upstream_servers(name: str, ports: Sequence[int]) -> str:
    """The lines of an upstream, named as in Compose, with every port in the place of the name."""
    lines = [line.strip() for line in compose_values()[name].split(";") if line.strip()]
    assert all(NAME in line for line in lines)
    return "\n".join(f"{line.replace(NAME, f'127.0.0.1:{port}')};" for line in lines for port in ports)


def unchanged(text: str) -> str:
    return text


def render(folder: Path, values: dict[str, str], edit: Edit) -> None:
    """What the image's entry script does: every template filled in, under its name without the ending."""
    for template in TEMPLATES.glob(f"*{SUFFIX}"):
        text = VARIABLE.sub(lambda found: values.get(found[1], found[0]), template.read_text(encoding="utf-8"))
        (folder / template.name.removesuffix(SUFFIX)).write_text(edit(text), encoding="utf-8")


@contextmanager
def running_nginx(folder: Path, ports: Sequence[int], edit: Edit = unchanged, **values: str) -> Iterator[Nginx]:
    """Starts nginx before servers on `ports` and ends it; `values` override Compose's, `edit` the filled-in text."""
    assert NGINX is not None
    folder.mkdir()
    port = free_port()
    own = {
        "PROXY_LISTEN": f"127.0.0.1:{port}",
        **{name: upstream_servers(name, ports) for name in UPSTREAMS},
    }
    render(folder, {**compose_values(), **UNLIMITED, **own, **values}, edit)
    as_root = " user root;" if os.geteuid() == 0 else ""  # else its workers could not enter the test's folder
    command = [NGINX, "-p", f"{folder}/", "-c", str(folder / "nginx.conf"), "-g", f"daemon off;{as_root}"]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)
    nginx = Nginx(port, process, folder)
    try:
        wait_for_port(nginx)
        yield nginx
    finally:
        process.terminate()
        process.wait(timeout=START_S)


def wait_for_port(nginx: Nginx) -> None:
    """Waits until nginx accepts connections; fails with what it wrote when it ends instead."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and nginx.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", nginx.port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nginx did not start:\n{nginx.errors}")


def port_of(url: str) -> int:
    """The port of a server's address."""
    return int(url.rpartition(":")[2])
