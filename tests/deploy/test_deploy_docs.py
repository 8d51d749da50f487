"""docs/deploy.md, followed from its top: the real Compose, nginx and server; what needs an engine is stood in for."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.compose import ROOT, compose_binary
from tests.deploy.nginx import needs_nginx, port_of, running_nginx
from tests.e2e.test_readme import commands
from tests.support.calls import eventually
from tests.support.photos import write_gallery
from tests.support.servers import clean_environment, running_server

DOCUMENT = ROOT / "docs" / "deploy.md"
SCRIPT_S = 480
STAND_IN = Path(__file__).with_name("stand_in_docker.py")

pytestmark = pytest.mark.deploy


def checkout(folder: Path) -> Path:
    """What of the repository the commands need."""
    folder.mkdir()
    for name in ("docker-compose.yml", "docker", "service/demo/data/queries"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return folder


def install_stand_in(folder: Path) -> None:
    """A program named docker."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def stand_in_environment(folder: Path, ready: str) -> dict[str, str]:
    """The variables for a script whose `docker` is the stand-in below `folder`; `ready` is the server's /readyz."""
    return clean_environment() | {
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STAND_IN_COMPOSE": str(compose_binary()),
        "STAND_IN_VOLUMES": str(folder / "volumes"),
        "STAND_IN_READY": ready,
    }


def run(script: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Status and output of a shell script, which is ended with all that it started when it takes too long."""
    started = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = started.communicate(timeout=SCRIPT_S)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        printed, _ = started.communicate()
    return started.returncode, printed


def shortened(step: str) -> str:
    """Training takes one epoch, and whoever asks what is served asks until the servers have switched."""
    step = step.replace("--recipe quick", "--recipe quick --epochs 1")
    if not (step.startswith("curl") and step.endswith("/info")):
        return step
    return f"""for _ in $(seq 150); do
  told=$({step})
  if [[ $told == *'"photos":18'* ]]; then break; fi
  sleep 0.2
done
echo "$told\""""


@needs_nginx
@pytest.mark.timeout(SCRIPT_S + 60)
def test_whoever_follows_the_document_from_the_top_gets_there(tmp_path: Path) -> None:
    for number, (name, classes) in enumerate((("photos", 3), ("train", 4), ("val", 3))):
        write_gallery(tmp_path / "srv" / name, classes=classes, photos=6, first_kind=10 * number)
    install_stand_in(tmp_path / "bin")
    index = tmp_path / "volumes" / "index"
    index.mkdir(parents=True)
    with (
        running_server(index, tmp_path / "log", wait_ready=False) as server,
        running_nginx(tmp_path / "nginx", [port_of(server.url)]) as nginx,
    ):
        steps = [
            line.replace("/srv/", f"{tmp_path}/srv/").replace("8000", str(nginx.port))
            for line in commands(DOCUMENT)
            if not line.startswith(("systemctl", "kubectl"))  # test_systemd.py and test_kubernetes.py
        ]
        curl = 'curl() { command curl --fail-with-body -sS "$@"; }'
        script = "\n".join(["set -euo pipefail", curl, *map(shortened, steps)])
        environment = stand_in_environment(tmp_path, f"{nginx.url}/readyz")
        status, printed = run(script, checkout(tmp_path / "checkout"), environment)
        assert status == 0, printed
        # A server follows CURRENT a moment later.
        eventually(lambda: server.client.get("/info").json()["photos"] == 18, f"the photos are served:\n{server.log}")
    assert len(steps) >= 29
    assert "264 rendered photos" in printed
    assert printed.count("CURRENT is now") == 2
    assert '"photos":18' in printed


@pytest.mark.parametrize(
    "wrong",
    [
        "docker compose up -d --wiat",
        "docker compose run --rm idexer",
        "docker compose up -d --scale serch=3",
        "docker compose lgos",
        "docker compose logs --snice 10m search",
        "docker compose --profile monitoring up -d monitor",
        "docker volume ls",
    ],
)
def test_a_command_that_does_not_fit_the_compose_file_is_found(tmp_path: Path, wrong: str) -> None:
    """The stand-in's negative control."""
    install_stand_in(tmp_path / "bin")
    environment = stand_in_environment(tmp_path, "http://127.0.0.1:9/")
    folder = checkout(tmp_path / "checkout")
    done = subprocess.run(["bash", "-c", wrong], cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode != 0
