"""Linux on ARM: what the CPU image installs has wheels for glibc 2.28 there, in the pinned versions. Asks PyPI."""

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.unit.test_packaging import PROJECT, ROOT, constraints, name_of

OLDEST_GLIBC, GLIBC = 17, 28
"""2.17 is that of the oldest wheels, 2.28 that of RHEL 8; docs/deploy.md says so."""
TAGS = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(OLDEST_GLIBC, GLIBC + 1))]

pytestmark = pytest.mark.deploy


def test_everything_has_a_wheel_in_the_pinned_version(tmp_path: Path) -> None:
    asked = map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cpu"])
    # pip reads markers for the machine that it runs on, whatever --platform says.
    wanted = [one for one in asked if one.marker is None or one.marker.evaluate({"platform_machine": "aarch64"})]
    (tmp_path / "requirements.txt").write_text("\n".join(f"{one.name}{one.specifier}" for one in wanted))
    command: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--dest", tmp_path / "wheels"]
    command += ["--implementation", "cp", "--python-version", PROJECT["requires-python"].removeprefix(">=")]
    command += [word for tag in TAGS for word in ("--platform", tag)]
    command += ["-c", ROOT / "constraints.txt", "-r", tmp_path / "requirements.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wheels = (path.name.split("-") for path in (tmp_path / "wheels").iterdir())
    found = {name_of(name): version for name, version, *_ in wheels}
    assert {name_of(one.name) for one in wanted} <= found.keys()
    assert "onnxruntime" in found
    assert "openvino" not in found
    assert found == {name: constraints()[name] for name in found}
