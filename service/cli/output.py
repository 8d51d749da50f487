"""What every command prints with: results on standard output, progress and problems on standard error."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.dataset import Skipped

if TYPE_CHECKING:
    from model import embedder

out = Console()
err = Console(stderr=True)

SKIPPED_SHOWN = 20


def say(text: str) -> None:
    """One line of a result, as it is: paths and names are nobody's markup."""
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str, style: str) -> None:
    """One line about a problem, as it is."""
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def list_skipped(skipped: Sequence[Skipped]) -> None:
    """Names photos that are not used, and says how many more there are."""
    for photo in skipped[:SKIPPED_SHOWN]:
        complain(f"skipped {photo.name}: {photo.message}", "yellow")
    if len(skipped) > SKIPPED_SHOWN:
        complain(f"... and {len(skipped) - SKIPPED_SHOWN} more", "yellow")


@contextmanager
def progress_bar(what: str) -> "Iterator[embedder.Progress]":
    """A bar on a terminal, nothing elsewhere; gives what is to be told (done, total)."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
