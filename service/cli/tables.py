"""What the command line prints: tables for people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from rich.console import Group
from rich.table import Table
from rich.text import Text

from indexer.benchmark.report import Report
from indexer.versions import IndexDirectory
from model.errors import CarsearchError, IndexNotFound

CLASSES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One index version for the listing."""

    id: str
    current: bool
    photos: str
    classes: str
    model: str
    storage: str
    state: str


def of_hits(hits: Iterable[Mapping[str, Any]]) -> Table:
    """Search results, best first."""
    table = Table("rank", "class", "score", "id")
    for hit in hits:
        table.add_row(
            str(hit["rank"]), Text(hit["class"]), f"{hit['score']:.4f}", Text(unquote(hit["id"]), overflow="fold")
        )
    return table


def of_report(report: Report) -> Group:
    """The benchmark in numbers, then the classes it finds hardest."""
    summary = Table("measure", "value", title=f"{report.mode} on {report.total} photos of {report.classes} classes")
    summary.add_row("top-1", f"{report.top1:.5f} = {report.correct}/{report.total}")
    summary.add_row("95% over classes", f"{report.ci95[0]:.4f} .. {report.ci95[1]:.4f}")
    summary.add_row("95% over photos", f"{report.ci95_photos[0]:.4f} .. {report.ci95_photos[1]:.4f}")
    for k, share in report.recall_at.items():
        summary.add_row(f"recall@{k}", f"{share:.4f}")
    summary.add_row("mAP@R", f"{report.map_at_r:.4f}")
    summary.add_row("unanswerable", str(len(report.unanswerable)))
    summary.add_row("skipped", str(len(report.skipped)))
    if report.identical_in_gallery is not None:
        summary.add_row("identical file in the gallery", str(report.identical_in_gallery))
    summary.add_row("model", Text(f"{report.versions['model']} ({report.versions['model_sha256'][:12]})"))
    hardest = Table("class", "photos", "top-1", title="hardest classes")
    for score in sorted(report.per_class, key=lambda score: score.top1)[:CLASSES_SHOWN]:
        hardest.add_row(Text(score.label), str(score.photos), f"{score.top1:.3f}")
    confused = Table("class", "taken for", "times", title="most confused")
    for pair in report.most_confused[:CLASSES_SHOWN]:
        confused.add_row(Text(pair.label), Text(pair.nearest_label), str(pair.count))
    return Group(summary, hardest, confused)


def version_rows(directory: IndexDirectory, verify: bool) -> tuple[list[VersionRow], CarsearchError | None]:
    """Every version with its state, and the first problem found."""
    first: CarsearchError | None = None
    try:
        current = directory.current()
    except IndexNotFound:
        if not directory.versions():
            raise
        current = ""
    rows = []
    for version in directory.versions():
        try:
            manifest = directory.verify(version) if verify else directory.manifest(version)
        except CarsearchError as problem:
            first = first or problem
            rows.append(VersionRow(version, version == current, "", "", "", "", str(problem)))
            continue
        classes, state = str(manifest.gallery["classes"]), "verified" if verify else ""
        model, storage = manifest.model_name, str(manifest.storage)
        rows.append(VersionRow(version, version == current, str(manifest.count), classes, model, storage, state))
    return rows, first


def of_versions(rows: Iterable[VersionRow]) -> Table:
    """Index versions, oldest first."""
    table = Table("", "version", "photos", "classes", "model", "storage", "state")
    for row in rows:
        mark = "CURRENT" if row.current else ""
        table.add_row(
            mark,
            Text(row.id, overflow="fold"),
            row.photos,
            row.classes,
            Text(row.model),
            row.storage,
            Text(row.state, overflow="fold"),
        )
    return table
