"""What commands print: results on standard output, progress and problems on standard error."""

import csv
import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from model.dataset import Skipped

if TYPE_CHECKING:
    from indexer.benchmark.compare import Comparison
    from indexer.benchmark.report import Report
    from model import embedder

out = Console()
err = Console(stderr=True)

SKIPPED_SHOWN = 20
CLASSES_SHOWN = 10
TOLD_EVERY_S = 10.0
"""Between two lines of progress where there is no terminal."""


def say(text: str) -> None:
    """Prints one line of a result as it is, without Rich's markup: it may hold paths and names."""
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str, style: str) -> None:
    """Prints one line about a problem as it is, without Rich's markup."""
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def list_skipped(skipped: Sequence[Skipped]) -> None:
    """Prints the first photos that are not used, and how many more there are."""
    for photo in skipped[:SKIPPED_SHOWN]:
        complain(f"skipped {photo.name}: {photo.message}", "yellow")
    if len(skipped) > SKIPPED_SHOWN:
        complain(f"... and {len(skipped) - SKIPPED_SHOWN} more", "yellow")


@contextmanager
def progress_bar(what: str) -> "Iterator[embedder.Progress]":
    """A progress bar on a terminal, elsewhere a line every ten seconds; gives a function that takes (done, total)."""
    if not err.is_terminal:
        yield _lines(what)
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str) -> "embedder.Progress":
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TOLD_EVERY_S:
            told = time.monotonic()
            complain(f"{what} {done}/{total}", "")

    return tell


def decision_sentence(decision: Mapping[str, Any]) -> str:
    """The class of a photo and how sure that is, for people."""
    if decision["outcome"] == "not_a_car":
        return f"not_a_car: the photo shows a car with a probability of {decision['car_probability']:.2f}"
    told = "{outcome}: {class}, probability {probability:.2f}, {agreement:.0%} of the ten nearest photos"
    return told.format(**decision)


def hits_table(hits: Iterable[Mapping[str, Any]]) -> Table:
    """Search results, best first; their metadata where there is any."""
    hits = list(hits)
    told = any(hit["metadata"] for hit in hits)
    table = Table("rank", "class", "score", "id", *(["metadata"] if told else []))
    for hit in hits:
        metadata = ", ".join(f"{name} {value}" for name, value in hit["metadata"].items())
        cells: list[str | Text] = [
            str(hit["rank"]),
            Text(hit["class"] or ""),
            f"{hit['score']:.4f}",
            folded(hit["id"]),
        ]
        table.add_row(*cells, *([folded(metadata)] if told else []))
    return table


def report_tables(report: "Report") -> Group:
    """The benchmark's figures, then the hardest classes and the classes that are confused most."""
    rows = {
        "top-1": f"{report.top1:.5f} = {report.correct}/{report.total}",
        "95% over classes": f"{report.ci95[0]:.4f} .. {report.ci95[1]:.4f}",
        "95% over photos": f"{report.ci95_photos[0]:.4f} .. {report.ci95_photos[1]:.4f}",
        "class": None if report.class_top1 is None else f"{report.class_top1:.5f}",
        "class, 95% over classes": report.class_ci95 and "{:.4f} .. {:.4f}".format(*report.class_ci95),
        **confidence_rows(report),
        **{f"recall@{k}": f"{share:.4f}" for k, share in report.recall_at.items()},
        "mAP@R": f"{report.map_at_r:.4f}",
        "copies of another photo": f"{report.copies}" + without_copies(report),
        "unanswerable": str(len(report.unanswerable)),
        "skipped": str(len(report.skipped)),
        "identical file in the gallery": report.identical_in_gallery,
        "model": f"{report.versions['model']} ({report.versions['model_sha256'][:12]})",
    }
    summary = Table("measure", "value", title=f"{report.mode} on {report.total} photos of {report.classes} classes")
    for name, value in rows.items():
        if value is not None:
            summary.add_row(name, Text(str(value)))
    hardest = Table("class", "photos", "top-1", title="hardest classes")
    for score in sorted(report.per_class, key=lambda score: score.top1)[:CLASSES_SHOWN]:
        hardest.add_row(Text(score.label), str(score.photos), f"{score.top1:.3f}")
    confused = Table("class", "taken for", "times", title="most confused")
    for pair in report.most_confused[:CLASSES_SHOWN]:
        confused.add_row(Text(pair.label), Text(pair.nearest_label), str(pair.count))
    return Group(summary, hardest, confused)


def comparison_sentence(found: "Comparison") -> str:
    """What changed since an earlier evaluation, in one line."""
    one = found.top1
    return (
        f"Since {found.name}, on {found.photos} photos: top-1 {100 * one.difference:+.2f} points "
        f"(95% over classes {100 * one.ci95.low:+.2f} to {100 * one.ci95.high:+.2f}); "
        f"{one.gained} became right, {one.lost} wrong (McNemar p = {one.p_value:.3f})."
    )


def confidence_rows(report: "Report") -> dict[str, str | None]:
    """The figures of the probability, None where there is none."""
    told = report.confidence
    if told is None:
        return {}
    kept = "none" if told.precision is None else f"{told.precision:.3f}"
    return {
        f"decided at {told.wanted:.0%} precision": f"{told.coverage:.3f} of the photos, {kept} of them rightly",
        "calibration error": f"{told.error:.3f}",
        "AUROC right or wrong": None if told.auroc is None else f"{told.auroc:.3f}",
    }


def without_copies(report: "Report") -> str:
    """What top-1 is without queries that have a copy."""
    if not report.copies or report.top1_without_copies is None:
        return ""
    return f", top-1 without them {report.top1_without_copies:.5f}"


def refuse_missing_folders(*files: Path | None) -> None:
    """Raises FileNotFoundError for a file to be written whose folder is not there: before the work, not after it."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))


def write_copies(path: Path, copies: Sequence[Sequence[str]]) -> None:
    """Writes a line for each photo that has copies: the number of its group, and its id."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("group", "id"))
        writer.writerows((number, identity) for number, group in enumerate(copies, 1) for identity in group)


def folded(text: str) -> Text:
    """Text of a table's cell that is broken into lines instead of cut off."""
    return Text(text, overflow="fold")
