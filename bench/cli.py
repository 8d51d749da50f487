"""The command line of what is measured: render a benchmark, show what it looks like, measure models on it."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bench import cli_measure
from model.errors import CarsearchError, missing_dependency
from service.cli.output import complain, err, progress_bar, say

if TYPE_CHECKING:  # at run time each command imports what it needs, so that none asks for a renderer it does not use
    from bench.rendered_cars.plan import Split
    from bench.rendered_cars.render import Progress

app = typer.Typer(
    name="carsearch-bench",
    help="Benchmarks for carsearch that anybody can make.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SAY_EVERY_S = 30.0


class SplitChoice(StrEnum):
    train = "train"
    test = "test"


SeedOption = Annotated[int, typer.Option(min=0, help="Another seed gives other cars and other photos.")]
LikenessOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="How alike two names may be: 0 easy, 1 hard; the benchmark's own.")
]


@app.callback()
def _several() -> None:
    """Keeps the names of commands, however few there are."""


@app.command()
def render(
    out: Annotated[Path, typer.Option("--out", help="Folder for the photos, one folder a class.")],
    split: Annotated[SplitChoice, typer.Option(help="84 names with 53,813 photos, or 78 others with 11,046.")],
    scale: Annotated[float, typer.Option(help="This fraction of the photos, with the same structure.")] = 1.0,
    seed: SeedOption = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all processors by default.")] = None,
    likeness: LikenessOption = None,
) -> None:
    """Render the photos of a split that a folder lacks; it may be interrupted, and the scale raised later."""
    from bench.rendered_cars.catalogue import LIKENESS
    from bench.rendered_cars.render import Order
    from bench.rendered_cars.render import render as run

    order = Order(_of(split), seed, LIKENESS if likeness is None else likeness, scale)
    started = time.monotonic()
    with _progress("rendering") as progress:
        result = run(order, out, workers, progress)
    took = f", {result.made / max(time.monotonic() - started, 1e-9):.1f} a second" if result.made else ""
    say(f"{out}: {result.photos} photos of {result.cars} cars, {result.classes} classes ({result.made} new{took})")


@app.command()
def sheet(
    out: Annotated[Path, typer.Option("--out", help="The picture to write, a JPEG.")],
    split: Annotated[SplitChoice, typer.Option(help="Whose cars.")] = SplitChoice.train,
    seed: SeedOption = 0,
    likeness: LikenessOption = None,
) -> None:
    """Render a contact sheet: what the photos of a split look like."""
    from bench.rendered_cars.catalogue import LIKENESS, cars
    from bench.rendered_cars.render import write_whole
    from bench.rendered_cars.sheet import contact_sheet

    chosen = _of(split)
    with _progress("rendering") as progress:
        data = contact_sheet(cars(chosen, seed, LIKENESS if likeness is None else likeness), chosen, seed, progress)
    write_whole(out, data)
    say(f"{out}: {len(data)} bytes")


def _of(choice: SplitChoice) -> "Split":
    return "train" if choice is SplitChoice.train else "test"


for _command in (
    cli_measure.trivial,
    cli_measure.precision,
    cli_measure.card,
    cli_measure.gallery,
    cli_measure.sizing,
    cli_measure.storage,
    cli_measure.performance,
):
    app.command()(_command)


@contextmanager
def _progress(what: str) -> "Iterator[Progress]":
    """A bar on a terminal; elsewhere a line now and then, for whoever reads the log of hours."""
    if err.is_terminal:
        with progress_bar(what) as progress:
            yield progress
        return
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > SAY_EVERY_S:
            last = time.monotonic()
            complain(f"{what}: {done} of {total}", "")

    yield tell


def _fail(problem: CarsearchError) -> NoReturn:
    complain(f"error: {problem}", "red")
    sys.exit(1)


def main() -> None:
    """Entry point: a failure is one sentence and exit status 1, wrong usage 2, Ctrl-C 130; never a traceback."""
    try:
        app()
    except CarsearchError as problem:
        _fail(problem)
    except ModuleNotFoundError as problem:
        missing = missing_dependency(problem)
        if missing is None:
            raise  # one of our own modules: a bug, and a traceback is what helps
        _fail(missing)
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        _fail(CarsearchError(f"{where}{problem.strerror or problem}."))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
