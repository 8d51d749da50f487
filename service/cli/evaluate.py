"""The command that runs the benchmark."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.options import (
    ClassDepthOption,
    CopiesOption,
    ExcludeOption,
    ModelOption,
    PrecisionOption,
    RuntimeOption,
)
from service.cli.output import (
    comparison_sentence,
    err,
    list_skipped,
    out,
    progress_bar,
    refuse_missing_folders,
    report_tables,
    say,
    write_copies,
)

if TYPE_CHECKING:
    from indexer.benchmark.compare import Comparison
    from indexer.benchmark.report import Evaluation
    from model.embedder import Embedder
    from service.engine import Engine


def evaluate(
    data: Annotated[Path, typer.Option(help="Labelled set: class folders or a CSV manifest.")],
    model: ModelOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    mode: Annotated[
        Literal["leave-one-out", "gallery"],
        typer.Option(help="Leave one out of the set, or search in the gallery of --index."),
    ] = "leave-one-out",
    index_dir: Annotated[Path | None, typer.Option("--index", help="Index whose model, and gallery, to use.")] = None,
    class_depth: ClassDepthOption = None,
    exclude: ExcludeOption = None,
    report: Annotated[Path | None, typer.Option(help="Write the whole report to this file, as JSON.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a report for people, with pictures, to this one HTML file.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Tell what changed since an evaluation whose --report is this file.")
    ] = None,
    predictions: Annotated[Path | None, typer.Option(help='Write "query nearest" pairs of ids to this file.')] = None,
    copies: CopiesOption = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run the top-1 benchmark on a labelled set."""
    from indexer.benchmark.compare import compare as compare_with
    from indexer.benchmark.compare import read_earlier
    from indexer.benchmark.evaluate import evaluate as run
    from model.embedder import Embedder

    refuse_missing_folders(html, report, predictions, copies)
    earlier = None if compare is None else read_earlier(compare)  # before the photos are read
    engine = _engine(index_dir if model is None else None, mode, runtime, precision)
    embedder = engine.embedder if engine else Embedder.load(model, runtime, precision)
    against = engine if mode == "gallery" else None
    with progress_bar("evaluating") as progress:
        evaluation = run(
            data,
            embedder,
            gallery=against.served if against else None,
            class_depth=class_depth,
            exclude=exclude or (),
            progress=progress,
            details=html is not None,
        )
    _write_files(evaluation, report, predictions, copies)
    comparison = None if earlier is None else compare_with(evaluation, earlier)
    if html is not None:
        _write_html(html, data, evaluation, embedder, against, comparison)
    if json_:
        told = {} if comparison is None else {"comparison": comparison.to_json()}
        out.print_json(data={**evaluation.report.to_json(), **told}, ensure_ascii=False)
        return
    list_skipped(evaluation.report.skipped)
    out.print(report_tables(evaluation.report))
    if comparison is not None:
        say(comparison_sentence(comparison))


def _engine(index_dir: Path | None, mode: str, runtime: str, precision: str | None) -> "Engine | None":
    """The index whose model, and perhaps gallery, is used; None where a model is named instead."""
    from service.directory import open_directory
    from service.engine import open_index

    if index_dir is None:
        if mode == "gallery":
            raise typer.BadParameter("--mode gallery needs --index, and takes its model.")
        return None
    if precision:
        raise typer.BadParameter("--precision goes with --model; an index has its own.")
    return open_index(open_directory(index_dir), runtime=runtime)


def _write_files(evaluation: "Evaluation", report: Path | None, predictions: Path | None, copies: Path | None) -> None:
    if report is not None:
        text = json.dumps(evaluation.to_json(), indent=1, ensure_ascii=False)
        report.write_text(f"{text}\n", encoding="utf-8")
    if predictions is not None:
        predictions.write_text(evaluation.predictions_text(), encoding="utf-8")
    if copies is not None:
        write_copies(copies, evaluation.copies)


def _write_html(
    path: Path,
    data: Path,
    evaluation: "Evaluation",
    embedder: "Embedder",
    gallery: "Engine | None",
    comparison: "Comparison | None",
) -> None:
    """Writes the report for people; photos of a gallery that was searched are read from where they lie."""
    from service.report.build import Subject, report_html

    subject = Subject(data.resolve().name, datetime.now().astimezone())
    original = None if gallery is None else lambda identity: gallery.original(gallery.items.by_id(identity))
    with err.status("making the report"):
        text = report_html(evaluation, embedder, subject, original=original, comparison=comparison)
    path.write_text(text, encoding="utf-8")
