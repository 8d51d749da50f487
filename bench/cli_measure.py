"""The commands that measure and pack what ships: trivial, precision, card, gallery, sizing, storage, performance."""

import json
from pathlib import Path
from typing import Annotated

import typer

from model.errors import DataInvalid
from service.cli.output import complain, progress_bar, say
from service.cli.output import out as console

Data = Annotated[list[Path], typer.Option("--data", help="A labelled set; may be repeated.")]


def trivial(data: Data) -> None:
    """Score nearest neighbours on raw pixels and on colour histograms: what a set gives away without a network."""
    from bench.trivial import trivial_scores
    from model.dataset import read_items

    for source in data:
        items = read_items(source).items
        with progress_bar(source.name) as progress:
            scores = trivial_scores(items, progress)
        for score in scores:
            interval = f"{score.ci95.low:.4f} to {score.ci95.high:.4f}"
            say(f"{source}: {score.name} {score.top1:.4f} (95% over classes {interval}), {len(items)} photos")


def precision(
    data: Data,
    model: Annotated[str | None, typer.Option(help="Name of a model that ships, or a directory.")] = None,
    reference: Annotated[str, typer.Option(help="What runs fp32: auto, openvino or torch.")] = "auto",
    report: Annotated[Path | None, typer.Option(help="Where the numbers go as JSON.")] = None,
) -> None:
    """Compare int8 with fp32 on the same photos: what the smaller numbers cost, in points with intervals."""
    from bench.precision import compare, table_of

    comparison = compare(model, data, reference)
    console.print(table_of(comparison))
    if report:
        report.write_text(json.dumps(comparison.to_json(), indent=1) + "\n", encoding="utf-8")


def card(
    model_dir: Annotated[Path, typer.Argument(help="The model whose card is completed.")],
    about: Annotated[Path | None, typer.Option(help="Texts by heading, a TOML file.")] = None,
    report: Annotated[Path | None, typer.Option(help="A report of `carsearch evaluate`.")] = None,
    set_name: Annotated[str | None, typer.Option("--set", help="What the report's set is called.")] = None,
    command: Annotated[str | None, typer.Option(help="The command that gives the report.")] = None,
) -> None:
    """Put texts and a score into a model's card, and write MODEL.md for people beside it."""
    from model.export.model_md import DESCRIPTION_NAME, read_about, record_about, record_score
    from model.storage import read_json

    if report and not (set_name and command):
        raise DataInvalid("A score needs the name of its set and the command that gives it: --set and --command.")
    if about:
        record_about(model_dir, read_about(about))
    if report and set_name and command:
        record_score(model_dir, read_json(report, DataInvalid), set_name, command)
    say(f"{model_dir / DESCRIPTION_NAME}")


def gallery(
    rendered: Annotated[Path, typer.Option("--from", help="A rendered test split.")],
    out: Annotated[Path, typer.Option("--out", help="Where the demo's gallery goes.")],
) -> None:
    """Choose the photos that ship as the demo's gallery, and others to search with."""
    from bench.shipping import choose

    made = choose(rendered, out)
    photos = f"{made.photos} photos of {made.cars} cars, {made.classes} classes"
    say(f"{out}: {photos}, {made.queries} queries, {made.bytes} bytes")


def sizing(
    items: Annotated[list[int], typer.Option(min=1, help="Photos in the gallery; may be repeated.")],
    cores: Annotated[list[int], typer.Option(min=1, help="Cores for the server; may be repeated.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is asked.")] = 10.0,
    runs: Annotated[int, typer.Option(min=1, help="The median rate of so many runs.")] = 3,
    report: Annotated[Path | None, typer.Option(help="Where the numbers go as JSON.")] = None,
) -> None:
    """Measure what galleries of some sizes need: memory, disk, time to ready, photos a second for cores."""
    from bench.sizing import measure, middle, table_of, to_json

    sizes = middle([measure(items, cores, seconds) for _ in range(runs)])
    console.print(table_of(sizes))
    if report:
        report.write_text(json.dumps(to_json(sizes), indent=1) + "\n", encoding="utf-8")


def storage(
    index_dir: Annotated[Path | None, typer.Option("--index", help="An index whose vectors are stored anew.")] = None,
    rows: Annotated[list[int] | None, typer.Option(min=2, help="So many made-up vectors; may be repeated.")] = None,
    dim: Annotated[int, typer.Option(min=2, help="Dimensions of made-up vectors.")] = 512,
    queries: Annotated[
        list[int] | None, typer.Option(min=1, help="Queries a call; may be repeated; 1, 8 and 32 by default.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that search.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long each is asked.")] = 1.0,
    report: Annotated[Path | None, typer.Option(help="Where the numbers go as JSON.")] = None,
) -> None:
    """Measure fp32, fp16 and sq8 storage of an index's vectors: time of a search, bytes, recall@1 against fp32."""
    from bench.storage import embeddings_of_index, made_up, measure, table_of, to_json
    from indexer.versions import IndexDirectory

    if index_dir is None and not rows:
        raise typer.BadParameter("Name an index or a number of made-up vectors: --index or --rows.")
    numbers = queries or [1, 8, 32]
    costs = []
    if index_dir is not None:
        costs += measure(embeddings_of_index(IndexDirectory(index_dir)), numbers, threads, seconds, recall=True)
    for count in rows or []:
        costs += measure(made_up(count, dim), numbers, threads, seconds, recall=False)
    console.print(table_of(costs))
    if report:
        report.write_text(json.dumps(to_json(costs), indent=1) + "\n", encoding="utf-8")


def performance(
    model: Annotated[str, typer.Option(help="Name of a model that ships, or a directory.")] = "resnet18",
    out: Annotated[Path, typer.Option(help="Folder for JSON, plot and document.")] = Path("docs"),
    quick: Annotated[bool, typer.Option("--quick", help="Only whether it works, in seconds; needs --out.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of the comparison; 5 by default.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests of the long use; 50,000 by default.")] = None,
) -> None:
    """Measure the service over HTTP beside a naive peer and the limit of its parts, its memory and its start."""
    from dataclasses import replace

    from bench.performance import FULL, QUICK, measure, write
    from bench.section import tables_of

    if quick and out == Path("docs"):
        raise DataInvalid("A quick run measures nothing worth keeping: name a folder of its own with --out.")
    extent = QUICK if quick else FULL
    extent = replace(
        extent,
        requests=requests or extent.requests,
        effort=replace(extent.effort, rounds=rounds or extent.effort.rounds),
    )
    measured = measure(model, extent, lambda step: complain(step, ""))
    for table in tables_of(measured):
        console.print(table)
    for path in write(measured, out):
        say(f"{path}")
