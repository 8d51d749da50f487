"""Linux on ARM: what the CPU image installs has wheels there, in the pinned versions. Asks PyPI."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_packaging import PROJECT, ROOT, constraints, name_of

OLDEST_GLIBC, GLIBC = 17, 36
"""2.17 is that of the oldest wheels, 2.36 that of the images' base, Debian 12."""
TAGS = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(OLDEST_GLIBC, GLIBC + 1))]
NEEDED_GLIBC = 35
"""OpenVINO's wheel asks for 2.35; everything else for 2.28 or less. docs/deploy.md says so."""

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Package -> the wheel that pip would install on ARM; nothing is installed."""
    folder = tmp_path_factory.mktemp("arm")
    requirements = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cpu"]
    (folder / "requirements.txt").write_text("\n".join(requirements))
    report = folder / "report.json"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--dry-run",
    ]
    command += ["--ignore-installed", "--report", report, "--target", folder / "none", "--only-binary", ":all:"]
    command += ["--implementation", "cp", "--python-version", PROJECT["requires-python"].removeprefix(">=")]
    command += [word for tag in TAGS for word in ("--platform", tag)]
    command += ["-c", ROOT / "constraints.txt", "-r", folder / "requirements.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    urls = (one["download_info"]["url"] for one in json.loads(report.read_bytes())["install"])
    return {name_of(name.replace("-", "==", 1)): name for name in (Path(url).name for url in urls)}


def test_everything_has_a_wheel_in_the_pinned_version(wheels: dict[str, str]) -> None:
    asked = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cpu"]
    assert {name_of(requirement) for requirement in asked} <= wheels.keys()
    found = {name: wheel.split("-")[1] for name, wheel in wheels.items()}
    assert found == {name: constraints()[name] for name in wheels}


def test_the_oldest_glibc_that_the_wheels_run_with_is_the_documented_one(wheels: dict[str, str]) -> None:
    least = {
        name: min(int(minor) for minor in re.findall(r"manylinux_2_(\d+)_aarch64", wheel))
        for name, wheel in wheels.items()
        if "manylinux_" in wheel
    }
    assert {"faiss-cpu", "numpy", "openvino", "pillow"} <= least.keys()
    assert least.pop("openvino") == NEEDED_GLIBC
    assert max(least.values()) <= 28
