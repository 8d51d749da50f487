"""The command line: one file for each command, registered here. Commands import what is heavy only when they run."""

import sys
from typing import NoReturn

import typer

from model.errors import CarsearchError, missing_dependency
from service import __version__
from service.cli.calibrate import calibrate
from service.cli.evaluate import evaluate
from service.cli.index import index
from service.cli.output import complain, out
from service.cli.search import search
from service.cli.serve import demo, serve
from service.cli.train import export, train

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
app.command()(calibrate)
app.command()(evaluate)
app.command()(search)
app.command()(serve)
app.command()(demo)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


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
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(sentence: str) -> NoReturn:
    complain(f"error: {sentence}", "red")
    sys.exit(1)
