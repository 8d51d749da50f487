"""The command line: one file for each command, registered here. Commands import what is heavy only when they run."""

import sys
from typing import Annotated, NoReturn

import typer

from model.errors import CarsearchError, missing_dependency
from service import __version__
from service.cli import versions
from service.cli.calibrate import calibrate
from service.cli.classes import classes
from service.cli.evaluate import evaluate
from service.cli.index import index
from service.cli.output import complain, out
from service.cli.search import search
from service.cli.serve import demo, serve
from service.cli.train import export, train

INTERRUPTED = 130

app = typer.Typer(
    name="carsearch",
    help="A photo of a car goes in; the nearest car of a gallery and its class come out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    train
)  # its options are `model.training`'s
app.command()(export)
app.command()(index)
app.add_typer(versions.app, name="versions")
app.command()(calibrate)
app.command()(evaluate)
app.command()(search)
app.command()(classes)
app.command()(serve)
app.command()(demo)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


def _version_and_end(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version_and_end, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Takes the options that come before a command."""


def main() -> None:
    """Runs a command: a failure is one sentence and exit status 1, wrong usage 2, Ctrl-C 130; never a traceback."""
    try:
        app()
    except CarsearchError as problem:
        _fail(str(problem))
    except ModuleNotFoundError as problem:
        missing = missing_dependency(problem)
        if missing is None:
            raise  # one of our own modules: a bug, and a traceback is what helps
        _fail(str(missing))
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        _fail(f"{where}{problem.strerror or problem}.")
    except (KeyboardInterrupt, SystemExit) as ended:
        if not _is_interrupted(ended):
            raise
    else:
        return
    # Only here has the exception let go of the command's generators, so that their threads stop reading photos.
    sys.exit(INTERRUPTED)


def _is_interrupted(ended: BaseException) -> bool:
    """Whether Ctrl-C ended the command: Typer answers with the status 130 and Lightning with 1."""
    by_ctrl_c = isinstance(ended, KeyboardInterrupt) or isinstance(ended.__context__, KeyboardInterrupt)
    return by_ctrl_c or (isinstance(ended, SystemExit) and ended.code == INTERRUPTED)


def _fail(sentence: str) -> NoReturn:
    complain(f"error: {sentence}", "red")
    sys.exit(1)
