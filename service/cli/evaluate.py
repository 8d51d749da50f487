"""The command that runs the benchmark."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from service.cli.options import (
    ClassDepthOption,
    CopiesOption,
    ExcludeOption,
    ModelOption,
    PrecisionOption,
    RuntimeOption,
)
from service.cli.output import list_skipped, out, progress_bar, report_tables, write_copies


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
    predictions: Annotated[Path | None, typer.Option(help='Write "query nearest" pairs of ids to this file.')] = None,
    copies: CopiesOption = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run the top-1 benchmark on a labelled set."""
    from indexer.benchmark.evaluate import evaluate as run
    from model.embedder import Embedder
    from service.engine import open_index

    engine = open_index(index_dir, runtime=runtime) if index_dir is not None and model is None else None
    if engine is None and mode == "gallery":
        raise typer.BadParameter("--mode gallery needs --index, and takes its model.")
    if engine is not None and precision:
        raise typer.BadParameter("--precision goes with --model; an index has its own.")
    embedder = engine.embedder if engine else Embedder.load(model, runtime, precision)
    gallery = engine.served if engine and mode == "gallery" else None
    with progress_bar("evaluating") as progress:
        evaluation = run(
            data, embedder, gallery=gallery, class_depth=class_depth, exclude=exclude or (), progress=progress
        )
    as_json = evaluation.report.to_json()
    if report is not None:
        report.write_text(json.dumps(as_json, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if predictions is not None:
        predictions.write_text(evaluation.predictions_text(), encoding="utf-8")
    if copies is not None:
        write_copies(copies, evaluation.copies)
    if json_:
        out.print_json(data=as_json, ensure_ascii=False)
        return
    list_skipped(evaluation.report.skipped)
    out.print(report_tables(evaluation.report))
