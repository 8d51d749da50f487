"""The command that searches an index directory with one photo or many."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.dataset import Skipped
from service.cli.options import IndexOption, RuntimeOption
from service.cli.output import decision_sentence, hits_table, out, say

if TYPE_CHECKING:
    from service.engine import Engine, Found, Query


def search(
    photos: Annotated[
        list[Path], typer.Argument(help="JPEG, PNG, WebP, AVIF or HEIC, one or many; or folders of them.")
    ],
    index_dir: IndexOption = Path("index"),
    k: Annotated[int, typer.Option("-k", help="How many photos, 1 to 100.")] = 5,
    class_: Annotated[list[str] | None, typer.Option("--class", help="Only photos of this class; repeatable.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Only photos whose metadata pass, such as 'price < 20000 and year >= 2018'.")
    ] = None,
    precision: Annotated[float, typer.Option(min=0.5, max=0.99, help="How often a class must be right.")] = 0.95,
    runtime: RuntimeOption = "auto",
    to: Annotated[
        Path | None,
        typer.Option("--out", help="Write what is found to this CSV file; - is standard output."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="JSON instead; of many photos a line each.")] = False,
) -> None:
    """Find the photos of a gallery that are nearest to a photo, and the class that they speak for."""
    from model.images.sources import read_photo
    from service.cli.search_many import photos_at, search_many, write_answers
    from service.engine import open_index

    many = photos_at(photos, index_dir) if len(photos) > 1 or photos[0].is_dir() or to is not None else []
    data = b"" if many else read_photo(photos[0])  # before the index is read
    engine = open_index(index_dir, runtime=runtime)
    rows = engine.rows(class_ or [], where)

    def query(data: bytes) -> "Query":
        return engine.query(data, k, rows)

    if many:
        found = search_many(engine, many, query)
        answers = ((path, one if isinstance(one, Skipped) else _answer(engine, one, precision)) for path, one in found)
        write_answers(answers, len(many), to, json_)
        return
    answer = _answer(engine, engine.answer(query(data)).found, precision)
    if json_:
        out.print_json(data=answer, ensure_ascii=False)
        return
    if answer["decision"] is not None:
        say(decision_sentence(answer["decision"]))
    out.print(hits_table(answer["results"]))


def _answer(engine: "Engine", found: "Found", precision: float) -> dict[str, Any]:
    """What is found, in the shape of the server's answer."""
    hits = [
        {"rank": hit.rank, "id": hit.id, "class": hit.label or None, "score": hit.score, "metadata": hit.metadata}
        for hit in found.hits
    ]
    answer = {"nearest": hits[0] if hits else None, "results": hits, "decision": engine.outcome(found, precision)}
    return {**answer, "versions": asdict(engine.versions)}
