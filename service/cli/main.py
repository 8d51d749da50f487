"""The command line: train, export, index, evaluate, search, serve, demo."""

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from indexer.stores.precision import StorageChoice
from model.errors import CarsearchError, FileUnreadable, missing_dependency
from service import __version__
from service.cli.output import complain, list_skipped, out, progress_bar, say
from service.cli.train import Precision, export, train

if TYPE_CHECKING:  # at run time each command imports what it needs, so that none waits for torch
    from indexer.versions import IndexDirectory
    from model.embedder import Embedder
    from service.engine import Engine

app = typer.Typer(
    name="carsearch",
    help="A photo of a car goes in; the nearest car of a gallery and its class come out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(export)


class RuntimeChoice(StrEnum):
    auto = "auto"
    openvino = "openvino"
    torch = "torch"


class Decoder(StrEnum):
    cpu = "cpu"
    nvjpeg = "nvjpeg"


class Mode(StrEnum):
    leave_one_out = "leave-one-out"
    gallery = "gallery"


ModelOption = Annotated[str | None, typer.Option("--model", help="Name of a model that ships, or a model directory.")]
RuntimeOption = Annotated[RuntimeChoice, typer.Option(help="What runs the network.")]
PrecisionOption = Annotated[
    Precision | None, typer.Option(help="int8 where the model has such a graph, by default; torch runs fp32 or bf16.")
]
DecoderOption = Annotated[
    Decoder | None, typer.Option(help="What decodes photos: cpu, by default, or nvjpeg, on the GPU and for the GPU.")
]
IndexOption = Annotated[Path, typer.Option("--index", help="Index directory.")]


@app.command()
def index(
    gallery: Annotated[Path | None, typer.Argument(help="Class folders or a CSV manifest.")] = None,
    index_dir: IndexOption = Path("index"),
    model: ModelOption = None,
    runtime: RuntimeOption = RuntimeChoice.auto,
    precision: PrecisionOption = None,
    storage: Annotated[
        StorageChoice | None,
        typer.Option(
            help="How vectors are kept; by default as before, and in a new index auto: "
            "fp16 where that finds what fp32 finds, else fp32."
        ),
    ] = None,
    decoder: DecoderOption = None,
    strict: Annotated[bool, typer.Option(help="Publish nothing when a photo cannot be used.")] = False,
    keep: Annotated[int, typer.Option(min=2, help="Versions to keep.")] = 3,
    list_: Annotated[bool, typer.Option("--list", help="List the versions and stop.")] = False,
    verify: Annotated[bool, typer.Option(help="Check every byte of every version and stop.")] = False,
    rollback: Annotated[bool, typer.Option(help="Go back to the version before, or to --to, and stop.")] = False,
    to: Annotated[str | None, typer.Option(help="Version for --rollback.")] = None,
) -> None:
    """Embed a gallery and publish it as the current index version, embedding only what is new or changed."""
    from indexer.versions import IndexDirectory

    directory = IndexDirectory(index_dir)
    if list_ or verify:
        _show_versions(directory, verify)
        return
    if rollback:
        say(f"CURRENT is now {directory.rollback(to)}.")
        return
    if gallery is None:
        raise typer.BadParameter("Name a gallery, or one of --list, --verify, --rollback.")
    from indexer.build import build_index

    embedder = _embedder_of(directory, model, runtime, precision, decoder)
    with progress_bar("indexing") as progress:
        result = build_index(gallery, directory, embedder, strict=strict, keep=keep, storage=storage, progress=progress)
    list_skipped(result.skipped)
    state = "published" if result.changed else "unchanged"
    copies = f", {result.copies} copies of others" if result.copies else ""
    say(
        f"{state}: version {result.version}, {result.photos} photos of {result.classes} classes{copies} "
        f"({result.embedded} embedded, {result.reused} reused, {len(result.skipped)} skipped)",
    )
    if result.recall is not None:
        say(f"stored in {result.storage}: recall@1 against fp32 {result.recall:.5f}")


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Labelled set: class folders or a CSV manifest.")],
    model: ModelOption = None,
    runtime: RuntimeOption = RuntimeChoice.auto,
    precision: PrecisionOption = None,
    decoder: DecoderOption = None,
    mode: Annotated[Mode, typer.Option(help="The benchmark, or against the gallery of --index.")] = Mode.leave_one_out,
    index_dir: Annotated[Path | None, typer.Option("--index", help="Index whose model, and gallery, to use.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the whole report here, as JSON.")] = None,
    predictions: Annotated[Path | None, typer.Option(help='Write "query nearest" pairs here.')] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run the top-1 benchmark on a labelled set."""
    from indexer.benchmark.evaluate import evaluate as run
    from model.dataset import read_items
    from model.embedder import Embedder
    from service.cli import tables

    found = read_items(data)
    engine = _engine(index_dir, runtime) if index_dir is not None and model is None else None
    if engine is None and mode is Mode.gallery:
        raise typer.BadParameter("--mode gallery needs --index, and takes its model.")
    if engine and (precision or decoder):
        raise typer.BadParameter("--precision and --decoder go with --model; an index has its own.")
    embedder = (
        engine.embedder
        if engine
        else Embedder.load(model, runtime.value, precision and precision.value, decoder=decoder or "cpu")
    )
    gallery = engine.served if engine and mode is Mode.gallery else None
    with progress_bar("evaluating") as progress:
        evaluation = run(found.items, embedder, gallery=gallery, skipped=found.skipped, progress=progress)
    if report is not None:
        _write(report, json.dumps(evaluation.report.to_json(), indent=1, ensure_ascii=False) + "\n")
    if predictions is not None:
        _write(predictions, evaluation.predictions_text())
    if json_:
        out.print_json(data=evaluation.report.to_json(), ensure_ascii=False)
        return
    list_skipped(evaluation.report.skipped)
    out.print(tables.of_report(evaluation.report))


@app.command()
def search(
    photo: Annotated[Path, typer.Argument(help="JPEG, PNG or WebP.")],
    index_dir: IndexOption = Path("index"),
    url: Annotated[str | None, typer.Option(help="Ask this server instead of an index directory.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many photos, 1 to 100.")] = 5,
    class_: Annotated[list[str] | None, typer.Option("--class", help="Only photos of this class; repeatable.")] = None,
    runtime: RuntimeOption = RuntimeChoice.auto,
    json_: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Find the photos of a gallery that are nearest to one photo."""
    from model.dataset import read_file
    from service.cli import client, tables

    try:
        data = read_file(photo)
    except FileUnreadable as problem:
        raise FileUnreadable(f"{photo}: {problem}") from problem
    if url is not None:
        answer = client.search(url, data, k, class_ or [])
    else:
        engine = _engine(index_dir, runtime)
        found = engine.search(data, k, class_ or [])
        hits = [{"rank": hit.rank, "id": hit.id, "class": hit.label, "score": hit.score} for hit in found]
        versions = asdict(engine.versions)
        answer = {"nearest": hits[0] if hits else None, "results": hits, "versions": versions}
    if json_:
        out.print_json(data=answer, ensure_ascii=False)
    else:
        out.print(tables.of_hits(answer["results"]))


@app.command()
def serve(
    index_dir: Annotated[Path | None, typer.Option("--index", help="Index directory (CARSEARCH_INDEX_DIR).")] = None,
    model: Annotated[str | None, typer.Option(help="Refuse an index that another model built.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
) -> None:
    """Serve an index over HTTP; every setting is in docs/settings.md."""
    from service.http.server import run
    from service.settings import load_settings

    run(load_settings(index_dir=index_dir, model=model), host, port)


@app.command()
def demo(
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="8000 by default; 0 takes a free one.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    check: Annotated[bool, typer.Option("--check", help="Compare with what was promised, on a free port, and end.")] = (
        False
    ),
    dir_: Annotated[
        Path | None, typer.Option("--dir", help="Where the index goes; by default into the user's cache directory.")
    ] = None,
    seed: Annotated[
        Path | None, typer.Option(help="Publish the demo's index in this directory if it has none, and end.")
    ] = None,
) -> None:
    """Index, evaluate and serve the gallery that ships with the model that ships, and say what to try."""
    from service.demo import command as the_demo

    if seed is not None:
        the_demo.seed(seed)
        return
    the_demo.run(the_demo.DemoOptions(host, port, dir_, check))


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


def _engine(index_dir: Path, runtime: RuntimeChoice) -> "Engine":
    from indexer.versions import IndexDirectory
    from service.engine import Engine

    return Engine.load(IndexDirectory(index_dir), runtime=runtime.value)


def _embedder_of(
    directory: "IndexDirectory",
    model: str | None,
    runtime: RuntimeChoice,
    precision: Precision | None,
    decoder: Decoder | None,
) -> "Embedder":
    """By default with model, precision and decoder of the current version, so that re-indexing names none of them."""
    from model.embedder import Embedder
    from model.errors import IndexNotFound

    chosen, taken_apart_by = precision and precision.value, decoder or "cpu"
    if model is not None:
        return Embedder.load(model, runtime.value, chosen, decoder=taken_apart_by)
    try:
        current = directory.manifest(directory.current())
    except IndexNotFound:
        return Embedder.load(None, runtime.value, chosen, decoder=taken_apart_by)
    path = directory.model_path(current.model_sha256)
    if chosen is not None or decoder is not None:
        return Embedder.load(path, runtime.value, chosen, decoder=taken_apart_by)
    return Embedder.load_like(path, current.embedding_id, runtime.value)


def _show_versions(directory: "IndexDirectory", verify: bool) -> None:
    from service.cli import tables

    rows, bad = tables.version_rows(directory, verify)
    out.print(tables.of_versions(rows))
    if bad:
        raise bad


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise CarsearchError(f"{path} cannot be written: {problem.strerror}.") from problem


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
