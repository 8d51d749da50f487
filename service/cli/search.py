"""The command that searches with one photo or many: an index directory, or over HTTP a running server."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.dataset import Skipped
from model.errors import DataInvalid
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
    precision: Annotated[
        float | None,
        typer.Option(min=0.5, max=0.99, help="How often a class must be right; 0.95 by default, or the server's."),
    ] = None,
    runtime: RuntimeOption = "auto",
    to: Annotated[
        Path | None,
        typer.Option("--out", help="Write what is found to this CSV file; - is standard output."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="JSON instead; of many photos a line each.")] = False,
    explain: Annotated[
        Path | None,
        typer.Option(help="Draw why the first five photos match into this PNG: heat where the two are alike."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Ask this server, as http://host:8000, instead of an index.")] = None,
    key: Annotated[str | None, typer.Option(envvar="CARSEARCH_KEY", help="API key for the server.")] = None,
) -> None:
    """Find the photos of a gallery that are nearest to a photo, and the class that they speak for."""
    from model.images.sources import read_photo
    from service.cli.search_many import photos_at, search_many, write_answers

    if explain is not None and (explain.suffix.lower() != ".png" or len(photos) > 1 or photos[0].is_dir() or to):
        raise typer.BadParameter("--explain draws a PNG for one photo: --explain why.png.")
    if url is not None and (index_dir != Path("index") or runtime != "auto" or explain is not None):
        raise typer.BadParameter("--index, --runtime and --explain are for an index on this machine, not for --url.")
    many = photos_at(photos, index_dir) if len(photos) > 1 or photos[0].is_dir() or to is not None else []
    data = b"" if many else read_photo(photos[0])  # before the index is read
    if url is not None:
        from service.cli.remote import connect, search_each, search_one

        with connect(url, key, {"k": k, "class": class_, "where": where, "precision": precision}) as server:
            if many:
                return write_answers(search_each(server, many), len(many), to, json_)
            return _print_answer(search_one(server, data), json_)
    from service.directory import open_directory
    from service.engine import open_index

    engine = open_index(open_directory(index_dir), runtime=runtime)
    query = partial(engine.query, k=k, among=engine.rows(class_ or [], where))
    tell = partial(_answer, engine, precision=precision or 0.95)
    if many:
        each = search_many(engine, many, query)
        answers = ((path, one if isinstance(one, Skipped) else tell(one)) for path, one in each)
        return write_answers(answers, len(many), to, json_)
    asked = query(data)
    found = engine.answer(asked).found
    if explain is not None:
        _draw(engine, data, asked, found, explain)
    return _print_answer(tell(found), json_)


def _print_answer(answer: dict[str, Any], json_: bool) -> None:
    if json_:
        out.print_json(data=answer, ensure_ascii=False)
        return
    if answer["decision"] is not None:
        say(decision_sentence(answer["decision"]))
    out.print(hits_table(answer["results"]))


def _draw(engine: "Engine", data: bytes, asked: "Query", found: "Found", path: Path) -> None:
    """Writes the picture of why the first hits match."""
    from service.explain import EXPLAINED, Explainer
    from service.heat import Match, draw_matches, seen

    if not found.hits:
        raise DataInvalid("Nothing was found, so there is no match to explain.")
    explainer, spec = Explainer(engine, asked), engine.embedder.card.input
    matches = [
        Match(
            seen(engine.original(engine.item(hit.id)), spec),
            explainer.explain(hit.id),
            f"{hit.rank}: {hit.score:.4f}",
        )
        for hit in found.hits[:EXPLAINED]
    ]
    draw_matches(seen(data, spec), matches).save(path)


def _answer(engine: "Engine", found: "Found", precision: float) -> dict[str, Any]:
    """What is found, in the shape of the server's answer."""
    hits = [
        {"rank": hit.rank, "id": hit.id, "class": hit.label or None, "score": hit.score, "metadata": hit.metadata}
        for hit in found.hits
    ]
    answer = {"nearest": hits[0] if hits else None, "results": hits, "decision": engine.outcome(found, precision)}
    return {**answer, "versions": asdict(engine.versions)}
