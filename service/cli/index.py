"""The command that builds an index, and lists, verifies and rolls back its versions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from indexer.stores.precision import StorageChoice
from model.errors import CarsearchError
from service.cli.options import (
    ClassDepthOption,
    CopiesOption,
    ExcludeOption,
    IndexOption,
    ModelOption,
    PrecisionOption,
    RuntimeOption,
)
from service.cli.output import complain, folded, list_skipped, out, progress_bar, say, write_copies

if TYPE_CHECKING:
    from indexer.build import BuildResult
    from indexer.calibration import Calibration
    from indexer.versions import IndexDirectory


def index(
    gallery: Annotated[
        Path | None,
        typer.Argument(help="A folder of photos, one folder a class if there are any, perhaps a photos.csv; or a CSV."),
    ] = None,
    index_dir: IndexOption = Path("index"),
    model: ModelOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    storage: Annotated[
        StorageChoice | None,
        typer.Option(
            help="How vectors are stored; by default as in the current version. A new index takes auto: fp16 where it "
            "finds what fp32 finds, else fp32."
        ),
    ] = None,
    class_depth: ClassDepthOption = None,
    exclude: ExcludeOption = None,
    allow_removals: Annotated[
        bool, typer.Option("--allow-removals", help="Publish even if over a tenth of the photos is gone.")
    ] = False,
    copies: CopiesOption = None,
    strict: Annotated[bool, typer.Option(help="Publish nothing when a photo cannot be used.")] = False,
    keep: Annotated[int, typer.Option(min=2, help="Versions to keep.")] = 3,
    list_: Annotated[bool, typer.Option("--list", help="List the versions and stop.")] = False,
    verify: Annotated[bool, typer.Option(help="Check every byte of every version and stop.")] = False,
    rollback: Annotated[bool, typer.Option(help="Go back to the version before, or to --to, and stop.")] = False,
    to: Annotated[str | None, typer.Option(help="Version for --rollback.")] = None,
) -> None:
    """Embed a gallery and publish it as the current index version; only new and changed photos are embedded."""
    from indexer.versions import IndexDirectory

    directory = IndexDirectory(index_dir)
    if list_ or verify:
        _list_versions(directory, verify)
        return
    if rollback:
        say(f"CURRENT is now {directory.rollback(to)}.")
        return
    if gallery is None:
        raise typer.BadParameter("Name a gallery, or one of --list, --verify, --rollback.")
    from indexer.build import build_index
    from indexer.load import embedder_for

    embedder = embedder_for(directory, model, runtime, precision)
    with progress_bar("indexing") as progress:
        result = build_index(
            gallery,
            directory,
            embedder,
            strict=strict,
            keep=keep,
            storage=storage,
            class_depth=class_depth,
            exclude=exclude or (),
            allow_removals=allow_removals,
            progress=progress,
        )
    if copies is not None:
        write_copies(copies, result.copies)
    list_skipped(result.skipped)
    _tell(result)


def _tell(result: "BuildResult") -> None:
    """What was published, what is gone, and what looks odd about the classes."""
    state = "published" if result.changed else "unchanged"
    further = sum(len(group) - 1 for group in result.copies)
    copied = f", {further} copies of others" if further else ""
    of_classes = f"of {result.classes} classes" if result.classes else "without classes"
    say(
        f"{state}: version {result.version}, {result.photos} photos {of_classes}{copied} "
        f"({result.embedded} embedded, {result.reused} reused, {len(result.skipped)} skipped)",
    )
    if result.columns:
        say("metadata: " + ", ".join(f"{column.name} ({column.kind})" for column in result.columns))
    if result.removed:
        left = f"; no photo is left of {', '.join(result.removed_classes)}" if result.removed_classes else ""
        complain(f"removed: {result.removed} photos of the version before are gone{left}", "yellow")
    for note in result.notes:
        complain(note, "yellow")
    if result.recall is not None:
        say(f"stored in {result.storage}: recall@1 against fp32 {result.recall:.5f}")


def _list_versions(directory: "IndexDirectory", verify: bool) -> None:
    """Prints all versions, oldest first; raises the first problem that is found, after all are printed."""
    from indexer.decider import read_calibration
    from indexer.versions import CURRENT_NAME

    versions = directory.versions()
    current = "" if versions and not (directory.root / CURRENT_NAME).exists() else directory.current()
    table = Table("", "version", "photos", "classes", "model", "storage", "probability", "state")
    problems: list[CarsearchError] = []
    for version in versions:
        about, state = ("", "", "", "", ""), "verified" if verify else ""
        try:
            manifest = directory.verify(version) if verify else directory.manifest(version)
            fitted = read_calibration(directory.path_of(version), manifest)
            counts = str(manifest.count), manifest.gallery["classes"]
            about = (*counts, manifest.model_name, manifest.storage, _fit_of(fitted))
        except CarsearchError as problem:
            problems.append(problem)
            state = str(problem)
        mark = "CURRENT" if version == current else ""
        table.add_row(mark, folded(version), *(Text(str(one)) for one in about), folded(state))
    out.print(table)
    if problems:
        raise problems[0]


def _fit_of(calibration: "Calibration | None") -> str:
    """How the probability of an index's classes was fitted."""
    if calibration is None:
        return "none"
    if not calibration.photos:
        return "as shipped"
    auroc = "" if calibration.auroc is None else f", AUROC {calibration.auroc:.3f}"  # None where all were right
    return f"fitted on {calibration.photos} photos, error {calibration.error:.3f}{auroc}"
