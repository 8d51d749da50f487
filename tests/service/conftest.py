"""The command line as tests call it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli import main as cli

Printed = subprocess.CompletedProcess[str]


@pytest.fixture
def carsearch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Printed]:
    """`carsearch ...` in this process, which has everything imported already."""

    def run(*arguments: str | Path) -> Printed:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["carsearch", *map(str, arguments)])
        capsys.readouterr()
        status: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code or 0
        assert isinstance(status, int)
        return subprocess.CompletedProcess(sys.argv, status, *capsys.readouterr())

    return run
