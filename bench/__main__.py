"""python -m bench: render the benchmark's photos, measure the product, and pack what ships. Run from a checkout."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table

from bench.rendered_cars.catalogue import LIKENESS
from indexer.stores.originals import Originals
from indexer.stores.precision import Storage
from model.errors import CarsearchError, DataInvalid, missing_dependency
from service.cli.output import complain, err, progress_bar, say
from service.cli.output import out as console

if TYPE_CHECKING:  # at run time each command imports what it needs: `trivial` works without the renderer
    from bench.rendered_cars.render import Progress

PROGRAM = "python -m bench"
MEASURED = Path(__file__).resolve().parent.parent / "docs" / "measured"
LOG_EVERY_S = 30.0

EXTRAS = {"hnswlib": "bench", "matplotlib": "bench", "pyvista": "render", "vtkmodules": "render"}
"""Package that only bench/ needs -> the extra that brings it."""

app = typer.Typer(
    help="Render the benchmark's photos, measure carsearch, and pack what ships.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class SplitChoice(StrEnum):
    train = "train"
    test = "test"


class GraphChoice(StrEnum):
    hnswlib = "hnswlib"
    faiss = "faiss-hnsw"


Data = Annotated[list[Path], typer.Option("--data", help="A labelled set; may be repeated.")]
Report = Annotated[Path | None, typer.Option(help="Write the figures here as JSON.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Another seed gives other cars and other photos.")]
LikenessOption = Annotated[float, typer.Option(min=0, max=1, help="How alike two names may be: 0 easy, 1 hard.")]


@app.command()
def render(
    out: Annotated[Path, typer.Option("--out", help="Folder for the photos, one folder a class.")],
    split: Annotated[SplitChoice, typer.Option(help="84 names with 53,813 photos, or 78 others with 11,046.")],
    scale: Annotated[float, typer.Option(help="This fraction of the photos, with the same structure.")] = 1.0,
    seed: SeedOption = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all processors by default.")] = None,
    likeness: LikenessOption = LIKENESS,
) -> None:
    """Render the photos of a split that a folder lacks. It can be interrupted, and started again at a larger scale."""
    from bench.rendered_cars.render import Order
    from bench.rendered_cars.render import render as run

    started = time.monotonic()
    with _progress("rendering") as progress:
        result = run(Order(split.value, seed, likeness, scale), out, workers, progress)
    took = f", {result.made / max(time.monotonic() - started, 1e-9):.1f} a second" if result.made else ""
    say(f"{out}: {result.photos} photos of {result.cars} cars, {result.classes} classes ({result.made} new{took})")


@app.command()
def openapi() -> None:
    """Write the server's OpenAPI document to docs/openapi.json."""
    from bench.openapi import EXPORTED, exported

    EXPORTED.write_text(exported(), encoding="utf-8")
    say(f"{EXPORTED}")


@app.command()
def sheet(
    out: Annotated[Path, typer.Option("--out", help="The JPEG to write.")],
    split: Annotated[SplitChoice, typer.Option(help="Whose cars.")] = SplitChoice.train,
    seed: SeedOption = 0,
    likeness: LikenessOption = LIKENESS,
) -> None:
    """Render a contact sheet: thirty small photos of a split in one picture."""
    from bench.rendered_cars.catalogue import cars
    from bench.rendered_cars.render import write_whole
    from bench.rendered_cars.sheet import contact_sheet

    with _progress("rendering") as progress:
        data = contact_sheet(cars(split.value, seed, likeness), split.value, seed, progress)
    write_whole(out, data)
    say(f"{out}: {len(data)} bytes")


@app.command()
def trivial(data: Data) -> None:
    """Score nearest neighbours on raw pixels and on colour histograms: how far a set is solved without a network."""
    from bench.trivial import trivial_scores
    from model.dataset import read_labelled

    for source in data:
        items = read_labelled(source).items
        with progress_bar(source.name) as progress:
            scores = trivial_scores(items, progress)
        for score in scores:
            interval = f"{score.ci95.low:.4f} to {score.ci95.high:.4f}"
            say(f"{source}: {score.name} {score.top1:.4f} (95% over classes {interval}), {len(items)} photos")


@app.command()
def precision(
    data: Data,
    model: Annotated[str | None, typer.Option(help="Name of a model that ships, or a directory.")] = None,
    report: Report = None,
) -> None:
    """Compare int8 with fp32 on the same photos: the difference in points of top-1, with intervals."""
    from bench.precision import compare, table_of

    comparison = compare(model, data)
    _tell([table_of(comparison)], comparison.to_json(), report)


@app.command()
def answers(
    data: Annotated[Path, typer.Option(help="A labelled set of classes that the model was not trained on.")],
    model: Annotated[str | None, typer.Option(help="Name of a model that ships, or a directory.")] = None,
    pictures: Annotated[list[Path] | None, typer.Option(help="Pictures without a car; may be repeated.")] = None,
    report: Report = None,
) -> None:
    """Measure what answers are worth: few photos a class, missing classes, colours, sizes, pictures without a car."""
    from bench.answers import measure, tables_of

    found = measure(data, model, pictures or [])
    _tell(tables_of(found), asdict(found), report)


@app.command()
def explain(
    data: Annotated[Path, typer.Option(help="A labelled set of classes that the model was not trained on.")],
    model: Annotated[str | None, typer.Option(help="Name of a model that ships, or a directory.")] = None,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of a photo and its nearest other.")] = 200,
    fp32: Annotated[bool, typer.Option("--fp32", help="Compare with scores of torch in fp32 too.")] = False,
    report: Report = None,
) -> None:
    """Test the maps of why photos match: hide what they call important, and compare their sums with the scores."""
    from bench.explain import measure, tables_of

    measured = measure(model, data, pairs, fp32)
    _tell(tables_of(measured), asdict(measured), report)


@app.command()
def card(
    model_dir: Annotated[Path, typer.Argument(help="The model whose card is completed.")],
    about: Annotated[Path | None, typer.Option(help="Texts by heading, a TOML file.")] = None,
    report: Annotated[Path | None, typer.Option(help="A report of `carsearch evaluate`.")] = None,
    set_name: Annotated[str | None, typer.Option("--set", help="What the report's set is called.")] = None,
    command: Annotated[str | None, typer.Option(help="The command that gives the report.")] = None,
) -> None:
    """Put texts and a score into a model's card, and write MODEL.md beside it."""
    from bench.model_md import DESCRIPTION_NAME, read_about, record_about, record_score
    from model.storage import read_json

    if report and not (set_name and command):
        raise DataInvalid("A score needs the name of its set and the command that gives it: --set and --command.")
    if about:
        record_about(model_dir, read_about(about))
    if report and set_name and command:
        record_score(model_dir, read_json(report, DataInvalid), set_name, command)
    say(f"{model_dir / DESCRIPTION_NAME}")


@app.command()
def gallery(
    rendered: Annotated[Path, typer.Option("--from", help="A rendered test split.")],
    out: Annotated[Path, typer.Option("--out", help="Where the demo's gallery goes.")],
) -> None:
    """Choose the photos that ship as the demo's gallery, and its queries."""
    from bench.demo_gallery import choose

    made = choose(rendered, out)
    photos = f"{made.photos} photos of {made.cars} cars, {made.classes} classes"
    say(f"{out}: {photos}, {made.queries} queries, {made.bytes} bytes")


@app.command()
def sizing(
    items: Annotated[list[int], typer.Option(min=1, help="Photos in the gallery; may be repeated.")],
    cores: Annotated[list[int], typer.Option(min=1, help="Cores for the server; may be repeated.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each load.")] = 10.0,
    runs: Annotated[int, typer.Option(min=1, help="Runs; the one with the median rate counts.")] = 3,
    report: Report = None,
) -> None:
    """Measure what galleries of some sizes need: memory, disk, time to ready, photos a second for cores."""
    from bench.sizing import measure, middle, table_of

    sizes = middle([measure(items, cores, seconds) for _ in range(runs)])
    _tell([table_of(sizes)], [asdict(size) for size in sizes], report)


@app.command()
def storage(
    index_dir: Annotated[Path | None, typer.Option("--index", help="An index whose vectors are stored anew.")] = None,
    rows: Annotated[list[int] | None, typer.Option(min=2, help="So many made-up vectors; may be repeated.")] = None,
    dim: Annotated[int, typer.Option(min=2, help="Dimensions of made-up vectors.")] = 512,
    only: Annotated[list[Storage] | None, typer.Option("--storage", help="May be repeated; all by default.")] = None,
    queries: Annotated[
        list[int] | None, typer.Option(min=1, help="Queries a call; may be repeated; 1, 8 and 32 by default.")
    ] = None,
    beside: Annotated[list[GraphChoice] | None, typer.Option(help="Graphs on the same vectors; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Time for each figure.")] = 1.0,
    report: Report = None,
) -> None:
    """Measure the storage of vectors: time of a search, memory, time to build, recall@1 against fp32."""
    from bench.storage import measure, table_of, write_made_up, write_vectors_of
    from indexer.versions import IndexDirectory

    if index_dir is None and not rows:
        raise typer.BadParameter("Name an index or a number of made-up vectors: --index or --rows.")
    numbers, storages = queries or [1, 8, 32], only or list(Storage)
    costs = []

    def add(vectors: Originals) -> None:
        costs.extend(measure(vectors, path, storages, numbers, seconds))
        if beside:
            from bench import graphs

            kinds = [graphs.Graph(name) for name in beside]
            costs.extend(graphs.measure(vectors, path, kinds, numbers, seconds))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.f32"
        if index_dir is not None:
            add(write_vectors_of(IndexDirectory(index_dir), path))
        for count in rows or []:
            path.unlink(missing_ok=True)
            add(write_made_up(path, count, dim))
    _tell([table_of(costs)], [asdict(cost) for cost in costs], report)


@app.command("build-memory")
def build_memory(
    photos: Annotated[int, typer.Option(min=100, help="Photos of the smaller of two galleries.")] = 10_000,
    model: Annotated[str, typer.Option(help="Whose number of dimensions the vectors have.")] = "resnet18",
    storage: Annotated[Storage, typer.Option(help="How vectors are stored.")] = Storage.fp16,
    report: Report = None,
) -> None:
    """Measure how much memory a build takes for each photo more, without a network."""
    from bench.build_memory import measure, table_of

    growth = measure(photos, model, storage)
    _tell([table_of(growth)], asdict(growth), report)


@app.command("build-scale")
def build_scale(
    photos: Annotated[int, typer.Option(min=200, help="Photos to make up and index.")] = 20_000,
    model: Annotated[str, typer.Option(help="Whose number of dimensions the vectors have.")] = "resnet18",
    folder: Annotated[Path | None, typer.Option(help="Where photos and index go; may hold those photos.")] = None,
    report: Report = None,
) -> None:
    """Index made-up photos without a network, kill that half-way, resume, change and fold; check it all."""
    from bench.build_scale import measure, table_of

    with TemporaryDirectory() as temporary:
        scale = measure(photos, model, folder or Path(temporary))
    _tell([table_of(scale)], asdict(scale), report)


@app.command("serve-scale")
def serve_scale(
    small: Annotated[int, typer.Option(min=200, help="Photos of the small gallery.")] = 11_000,
    large: Annotated[int, typer.Option(min=200, help="Photos of the large gallery.")] = 1_000_000,
    model: Annotated[str | None, typer.Option(help="Name of a model that ships, or a directory.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the galleries go; those that are there are kept.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of both servers.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each load.")] = 10.0,
    report: Report = None,
) -> None:
    """Measure /search over HTTP with 32 clients on a small and a large gallery of made-up vectors, in turns."""
    from bench.serve_scale import measure, table_of

    with TemporaryDirectory() as temporary:
        compared = measure(small, large, model, folder or Path(temporary), rounds, seconds)
    _tell([table_of(compared)], asdict(compared) | {"ratio": compared.ratio}, report)


@app.command()
def performance(
    model: Annotated[str, typer.Option(help="Name of a model that ships, or a directory.")] = "resnet18",
    out: Annotated[Path | None, typer.Option(help="Folder for the results; docs/measured by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only to see that it works; needs --out.")] = False,
) -> None:
    """Measure the service over HTTP beside a naive peer and the limit of its parts, its memory and its start."""
    from bench.performance import FULL, QUICK, measure
    from bench.performance_report import tables_of, write

    if quick and out is None:
        raise DataInvalid("The figures of a quick run mean nothing: name a folder of its own with --out.")
    measured = measure(model, QUICK if quick else FULL, lambda step: complain(step, ""))
    _tell(tables_of(measured))
    for path in write(measured, out or MEASURED):
        say(f"{path}")


def _tell(tables: Sequence[Table], value: object = None, report: Path | None = None) -> None:
    """Tables on standard output, and their figures as JSON in a file where one is named."""
    for table in tables:
        console.print(table)
    if report:
        report.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _progress(what: str) -> "Iterator[Progress]":
    """A bar on a terminal, elsewhere a line every half minute: rendering takes hours, and its log is read."""
    if err.is_terminal:
        with progress_bar(what) as progress:
            yield progress
        return
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > LOG_EVERY_S:
            last = time.monotonic()
            complain(f"{what}: {done} of {total}", "")

    yield tell


def _fail(problem: str) -> NoReturn:
    complain(f"error: {problem}", "red")
    sys.exit(1)


def main() -> None:
    """Entry point: a failure is one sentence and exit status 1, wrong usage 2, Ctrl-C 130; never a traceback."""
    try:
        app(prog_name=PROGRAM)
    except CarsearchError as problem:
        _fail(str(problem))
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        if package in EXTRAS:
            _fail(f'{package} is missing; install it with: pip install -c constraints.txt -e ".[{EXTRAS[package]}]"')
        missing = missing_dependency(problem)
        if missing is None:
            raise  # one of our own modules: a bug, and a traceback is what helps
        _fail(str(missing))
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        _fail(f"{where}{problem.strerror or problem}.")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
