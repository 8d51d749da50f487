"""Each guard has a test that fails when the guard is taken away: the controls of `tests/support/without.py`."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.support.without import CONTROLS, VARIABLE
from tests.unit.test_layout import ROOT

PATIENCE_S = 16
"""What is waited for in vain is not waited for long."""


@pytest.mark.parametrize("guard", CONTROLS)
def test_without_its_guard_a_test_fails(guard: str, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {**os.environ, VARIABLE: guard, "PATIENCE_S": str(PATIENCE_S)}
    done = subprocess.run(
        [*command, CONTROLS[guard].test], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout  # the test failed, and nothing worse
    (case,) = {case.attrib["name"] for case in ET.parse(report).iter("testcase")}  # noqa: S314  # pytest wrote it
    assert case == CONTROLS[guard].test.partition("::")[2]
    problems = [problem.attrib["message"] for problem in ET.parse(report).iter("error")]  # noqa: S314
    assert not any("failed on setup" in problem for problem in problems), problems  # the server did start
