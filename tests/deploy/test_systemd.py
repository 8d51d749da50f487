"""The units of docs/deploy.md: systemd's own tools read them, below another root. Nothing is started."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.http.server import GRACE_S
from service.settings import PREFIX, Settings
from tests.deploy.test_deploy_docs import DOCUMENT
from tests.e2e.test_readme import commands

UNITS = dict(
    re.findall(r"^```ini\n# /etc/systemd/system/(\S+)\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
)
SERVICES = [name for name in UNITS if name.endswith(".service")]
MOST_EXPOSED = 20
"""In tenths: systemd calls up to 20 "OK" and from 90 on "UNSAFE"."""

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed"),
]


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNITS[unit], re.MULTILINE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with the units, the program they start, and systemd's own units."""
    units = tmp_path / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    for name, text in UNITS.items():
        (units / name).write_text(text)
    program = tmp_path / "opt" / "carsearch" / "bin" / "carsearch"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    shutil.copytree("/lib/systemd/system", tmp_path / "usr" / "lib" / "systemd" / "system", symlinks=True)
    return tmp_path


def systemd(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_document_has_a_server_a_job_and_a_timer() -> None:
    assert list(UNITS) == ["carsearch.service", "carsearch-index.service", "carsearch-index.timer"]


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong_with_a_unit(root: Path, unit: str) -> None:
    done = systemd("systemd-analyze", "verify", f"--root={root}", unit)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_a_misspelt_line(root: Path) -> None:
    """The negative control."""
    unit = root / "etc" / "systemd" / "system" / "carsearch.service"
    unit.write_text(UNITS[unit.name].replace("ProtectSystem=", "ProtectSytem="))
    assert "ProtectSytem" in systemd("systemd-analyze", "verify", f"--root={root}", unit.name).stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_calls_a_service_well_protected(root: Path, unit: str) -> None:
    offline = [f"--root={root}", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager"]
    done = systemd("systemd-analyze", "security", *offline, unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_enable_the_server_and_the_timer(root: Path) -> None:
    """As they stand, but in another root, where nothing can be started."""
    enable, start = [line for line in commands(DOCUMENT) if line.startswith("systemctl")]
    words = enable.replace("--now ", "").split()
    done = systemd(words[0], f"--root={root}", *words[1:])
    assert done.returncode == 0, done.stderr
    wanted = root / "etc" / "systemd" / "system"
    assert (wanted / "multi-user.target.wants" / "carsearch.service").is_symlink()
    assert (wanted / "timers.target.wants" / "carsearch-index.timer").is_symlink()
    assert start.split()[-1] in UNITS


def test_the_units_fit_each_other_and_the_server() -> None:
    set_by = dict(value.split("=") for value in values("carsearch.service", "Environment"))
    assert {name.removeprefix(PREFIX).lower() for name in set_by} <= Settings.model_fields.keys()
    (command,) = values("carsearch-index.service", "ExecStart")
    assert command.split()[-1] == set_by["CARSEARCH_INDEX_DIR"]
    assert command.split()[2] == values("carsearch.service", "RequiresMountsFor")[0]
    assert values("carsearch.service", "User") == values("carsearch-index.service", "User")
    kept = {f"/var/lib/{name}" for name in values("carsearch.service", "StateDirectory")[0].split()}
    assert {set_by["CARSEARCH_INDEX_DIR"], set_by["CARSEARCH_STATE_DIR"]} <= kept
    assert int(values("carsearch.service", "TimeoutStopSec")[0]) > GRACE_S
