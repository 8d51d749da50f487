"""What the command line tells while it works and when it is stopped."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from service import __version__
from service.cli import main as cli
from service.cli import output
from tests.conftest import ROOT, Printed


def test_the_version_is_an_option_and_a_command(carsearch: Callable[..., Printed]) -> None:
    for word in ("--version", "version"):
        printed = carsearch(word)
        assert (printed.returncode, printed.stdout, printed.stderr) == (0, f"{__version__}\n", "")


def test_progress_is_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "TOLD_EVERY_S", 0)
    with output.progress_bar("indexing") as progress:
        progress(1200, 5000)
        progress(2400, 5000)
    assert capsys.readouterr() == ("", "indexing 1200/5000\nindexing 2400/5000\n")


def test_a_short_piece_of_work_tells_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress_bar("indexing") as progress:
        progress(5000, 5000)
    assert capsys.readouterr() == ("", "")


def interrupted() -> None:
    raise KeyboardInterrupt


def interrupted_as_lightning_ends() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("work", [interrupted, interrupted_as_lightning_ends])
def test_ctrl_c_is_130_whatever_a_library_makes_of_it(
    work: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "app", work)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130


def test_ctrl_c_while_everything_is_imported_is_130_too() -> None:
    """The command's own module is one whose import is interrupted."""
    program = (
        "import sys, signal\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': signal.raise_signal(signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from carsearch.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")
