"""The command that builds an index, and lists, verifies and rolls back its versions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from indexer.stores.precision import StorageChoice
from model.errors import CarsearchError, IndexNotFound
from service.cli.options import DecoderOption, IndexOption, ModelOption, PrecisionOption, RuntimeOption
from service.cli.output import folded, list_skipped, out, progress_bar, say

if TYPE_CHECKING:
    from indexer.versions import IndexDirectory
    from model.embedder import Embedder


def index(
    gallery: Annotated[Path | None, typer.Argument(help="Class folders or a CSV manifest.")] = None,
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
    decoder: DecoderOption = None,
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

    embedder = _embedder(directory, model, runtime, precision, decoder)
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


def _embedder(
    directory: "IndexDirectory",
    model: str | None,
    runtime: str,
    precision: str | None,
    decoder: Literal["cpu", "nvjpeg"] | None,
) -> "Embedder":
    """The chosen model; without --model that of the current version, with its precision and decoder by default."""
    from model.embedder import Embedder

    chosen = model
    if model is None:
        try:
            current = directory.manifest(directory.current())
        except IndexNotFound:
            pass
        else:
            path = directory.model_path(current.model_sha256)
            if precision is None and decoder is None:
                return Embedder.load_like(path, current.embedding_id, runtime)
            chosen = str(path)
    return Embedder.load(chosen, runtime, precision, decoder=decoder or "cpu")


def _list_versions(directory: "IndexDirectory", verify: bool) -> None:
    """Prints all versions, oldest first; raises the first problem that is found, after all are printed."""
    try:
        current = directory.current()
    except IndexNotFound:
        if not directory.versions():
            raise
        current = ""
    table = Table("", "version", "photos", "classes", "model", "storage", "state")
    first_problem: CarsearchError | None = None
    for version in directory.versions():
        mark = "CURRENT" if version == current else ""
        try:
            manifest = directory.verify(version) if verify else directory.manifest(version)
        except CarsearchError as problem:
            first_problem = first_problem or problem
            table.add_row(mark, folded(version), "", "", "", "", folded(str(problem)))
            continue
        photos, classes, model = str(manifest.count), str(manifest.gallery["classes"]), Text(manifest.model_name)
        state = "verified" if verify else ""
        table.add_row(mark, folded(version), photos, classes, model, str(manifest.storage), state)
    out.print(table)
    if first_problem is not None:
        raise first_problem
