"""`carsearch train` in this process, which has torch imported already."""

import sys
from collections.abc import Sequence

import pytest

from service.cli import main as cli


def train(arguments: Sequence[str]) -> int:
    """Trains as the command line says; returns its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["carsearch", "train", *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0
