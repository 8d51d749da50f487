"""The command that builds an index."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.options import (
    AllowRemovalsOption,
    ClassDepthOption,
    CopiesOption,
    DeltaOption,
    EngineOption,
    ExcludeOption,
    FoldOption,
    GalleryArgument,
    IndexOption,
    ListOption,
    ModelOption,
    PrecisionOption,
    RollbackOption,
    RuntimeOption,
    StorageOption,
    ToOption,
    TrustMtimeOption,
    VerifyOption,
)
from service.cli.output import complain, list_skipped, progress_bar, refuse_missing_folders, say, write_copies
from service.cli.versions import list_versions, rollback, verify

if TYPE_CHECKING:
    from indexer.build import BuildResult
    from indexer.delta import DeltaLog
    from indexer.embed import EmbeddingEngine


def index(
    gallery: GalleryArgument = None,
    index_dir: IndexOption = Path("index"),
    model: ModelOption = None,
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    storage: StorageOption = None,
    class_depth: ClassDepthOption = None,
    exclude: ExcludeOption = None,
    allow_removals: AllowRemovalsOption = False,
    trust_mtime: TrustMtimeOption = False,
    copies: CopiesOption = None,
    delta: DeltaOption = None,
    fold: FoldOption = False,
    engine: EngineOption = "local",
    strict: Annotated[bool, typer.Option(help="Publish nothing when a photo cannot be used.")] = False,
    keep: Annotated[int, typer.Option(min=2, help="Versions to keep.")] = 3,
    list_: ListOption = False,
    verify_: VerifyOption = False,
    rollback_: RollbackOption = False,
    to: ToOption = None,
) -> None:
    """Embed a gallery and publish it as the current index version; only new and changed photos are embedded."""
    if list_ or verify_ or rollback_:
        _of_versions(index_dir, verify_, rollback_, to)
        return
    _let_threads_sleep()
    log = _log_in(delta)
    if fold:
        _fold(index_dir, log, keep)
        return
    if gallery is None:
        raise typer.BadParameter("Name a gallery: a folder of photos, or a CSV file.")
    refuse_missing_folders(copies)
    from indexer.build import build_index
    from indexer.load import embedder_for
    from service.directory import open_directory

    directory = open_directory(index_dir)
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
            exclude=exclude or None,
            allow_removals=allow_removals,
            trust_mtime=trust_mtime,
            delta=log,
            engine=_engine(engine, log, trust_mtime),
            progress=progress,
        )
    list_skipped(result.skipped)
    _tell(result)
    if copies is not None:
        write_copies(copies, result.copies)


def _engine(name: str, log: "DeltaLog | None", trust_mtime: bool) -> "EmbeddingEngine":
    """What embeds."""
    if name == "local":
        from indexer.checkpoint import embed_resumably

        return embed_resumably
    if log is not None:  # its photos lie on this machine only
        raise typer.BadParameter("Leave --delta out with --engine ray, and take changes in with --fold afterwards.")
    if trust_mtime:
        raise typer.BadParameter("Leave --trust-mtime out with --engine ray, whose nodes read every photo.")
    from indexer.distributed.on_ray import embed_on_ray

    return embed_on_ray


def _log_in(folder: Path | None) -> "DeltaLog | None":
    """The log of changes."""
    from indexer.delta import DeltaLog

    return None if folder is None else DeltaLog(folder)


def _fold(index_dir: Path, log: "DeltaLog | None", keep: int) -> None:
    """Publishes what was put and deleted; a gallery is not looked at."""
    if log is None:
        raise typer.BadParameter("--fold needs --delta with the folder of changes.")
    from indexer.fold import fold_index
    from service.directory import open_directory

    _tell(fold_index(open_directory(index_dir), log, keep=keep))


def _let_threads_sleep() -> None:
    """Has threads of k-means that wait for others not spin, which takes the cores from other programs.

    OpenMP reads this when FAISS is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _of_versions(index_dir: Path, verify_: bool, rollback_: bool, to: str | None) -> None:
    """What the options did that are now commands of `carsearch versions`."""
    name = "verify" if verify_ else "rollback" if rollback_ else "list"
    complain(f"carsearch index --{name} will go; it is now: carsearch versions {name}", "yellow")
    if rollback_ and not verify_:
        rollback(to, index_dir)
    elif verify_:
        verify(index_dir)
    else:
        list_versions(index_dir)


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
