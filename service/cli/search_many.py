"""Searches with many photos: read and decoded while the network works, as when an index is built."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from model.dataset import Item, Photo, Skipped, read_items
from model.embedder import silent
from model.errors import DataInvalid, FileUnreadable, ImageRejected
from model.names import printable
from model.parallel import batched, decode_pool, map_in_order, prefetch
from service.cli.output import complain, decision_sentence, progress_bar, say

if TYPE_CHECKING:
    from model.runtimes.base import Pending
    from service.engine import Engine, Found, Query

    Asked = tuple[str, Query | Skipped]

Answered = tuple[str, dict[str, Any] | Skipped]
"""A photo's path, and what `search --json` prints for it or why it cannot be read."""

STDOUT = Path("-")
COLUMNS = (
    "query", "rank", "id", "class", "score", "metadata", "decision_outcome", "decision_class", "decision_probability",
    "error_code", "error_message",
)  # fmt: skip


def photos_at(paths: Sequence[Path], index_dir: Path) -> list[Item]:
    """The photos at some paths and, of folders, all below; their ids are their paths.

    An index that lies in a folder is left out. Raises DataInvalid for a folder without photos.
    """
    found: list[Path] = []
    for path in paths:
        inside = path.is_dir()
        found += [item.path for item in read_items(path, class_depth=0, without=index_dir).items] if inside else [path]
    return [Item(printable(str(path)), "", path) for path in found]


def search_many(
    engine: "Engine", photos: Iterable[Photo], query: "Callable[[bytes], Query]"
) -> "Iterator[tuple[str, Found | Skipped]]":
    """Id and finding of each photo, in order, or why it cannot be read; `query` makes the question of its bytes."""

    def read(photo: Photo) -> "Asked":
        try:
            return photo.id, query(photo.read())
        except (FileUnreadable, ImageRejected) as problem:
            return photo.id, Skipped.because(photo.id, problem)

    def submit(batch: "list[Asked]") -> "tuple[list[Asked], Pending | None]":
        queries = _queries_of(batch)
        return batch, engine.submit(queries) if queries else None

    with decode_pool() as pool:
        asked = map_in_order(pool, read, photos, buffer_size=2 * engine.embedder.batch)
        batches = map(submit, batched(asked, engine.embedder.batch))
        for batch, pending in prefetch(batches, engine.embedder.in_flight):
            found = iter(engine.nearest(pending.wait(), _queries_of(batch)) if pending else ())
            for identity, one in batch:
                yield identity, one if isinstance(one, Skipped) else next(found)


def _queries_of(batch: "list[Asked]") -> "list[Query]":
    return [one for _, one in batch if not isinstance(one, Skipped)]


def write_answers(answers: Iterable[Answered], photos: int, to: Path | None, json_: bool) -> None:
    """Writes the answers for so many photos as they come: CSV, JSON lines, or a line for people where `to` is None.

    Raises DataInvalid when none of the photos could be read.
    """
    in_file = to is not None and to != STDOUT
    problems: list[Skipped] = []
    with (
        to.open("w", encoding="utf-8", newline="") if to is not None and in_file else nullcontext(sys.stdout) as file,
        progress_bar("searching") if in_file else nullcontext(silent) as progress,
    ):
        write = _json_lines(file) if json_ else _for_people if to is None else _csv_lines(file)
        for done, (query, answer) in enumerate(answers, 1):
            if isinstance(answer, Skipped):
                problems.append(answer)
            write(query, answer)
            progress(done, photos)
    if len(problems) == photos:
        raise DataInvalid(f"None of the {photos} photos can be read; the first is {_told(problems[0])}")
    if problems and (json_ or to is not None):
        complain(f"{len(problems)} of {photos} photos cannot be read; the first is {_told(problems[0])}", "yellow")


def _told(problem: Skipped) -> str:
    return f"{problem.name}: {problem.message}"


def _for_people(query: str, answer: dict[str, Any] | Skipped) -> None:
    if isinstance(answer, Skipped):
        complain(_told(answer), "yellow")
        return
    told = [decision_sentence(answer["decision"])] if answer["decision"] else []
    if nearest := answer["nearest"]:
        told.append(f"nearest {nearest['id']} {nearest['score']:.4f}")
    say(f"{query}: {'; '.join(told) or 'nothing'}")


def _json_lines(file: TextIO) -> Callable[[str, dict[str, Any] | Skipped], None]:
    def write(query: str, answer: dict[str, Any] | Skipped) -> None:
        if isinstance(answer, Skipped):
            answer = {"error": {"code": answer.code, "message": answer.message}}
        file.write(json.dumps({"query": query, **answer}, ensure_ascii=False) + "\n")

    return write


def _csv_lines(file: TextIO) -> Callable[[str, dict[str, Any] | Skipped], None]:
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()

    def write(query: str, answer: dict[str, Any] | Skipped) -> None:
        if isinstance(answer, Skipped):
            writer.writerow({"query": query, "error_code": answer.code, "error_message": answer.message})
            return
        decision = answer["decision"] or {}
        decided = {f"decision_{name}": decision.get(name) for name in ("outcome", "class", "probability")}
        for hit in answer["results"] or [{}]:
            metadata = json.dumps(hit["metadata"], ensure_ascii=False) if hit.get("metadata") else ""
            writer.writerow({"query": query, **hit, "metadata": metadata, **decided})

    return write
