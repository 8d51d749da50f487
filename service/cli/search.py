"""The command that searches an index directory with one photo."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.options import IndexOption, RuntimeOption
from service.cli.output import hits_table, out, say


def search(
    photo: Annotated[Path, typer.Argument(help="JPEG, PNG, WebP, AVIF or HEIC.")],
    index_dir: IndexOption = Path("index"),
    k: Annotated[int, typer.Option("-k", help="How many photos, 1 to 100.")] = 5,
    class_: Annotated[list[str] | None, typer.Option("--class", help="Only photos of this class; repeatable.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Only photos whose metadata pass, such as 'price < 20000 and year >= 2018'.")
    ] = None,
    precision: Annotated[float, typer.Option(min=0.5, max=0.99, help="How often a class must be right.")] = 0.95,
    runtime: RuntimeOption = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Find the photos of a gallery that are nearest to one photo, and the class that they speak for."""
    from model.images.sources import read_photo
    from service.engine import open_index

    data = read_photo(photo)  # before the index is read
    engine = open_index(index_dir, runtime=runtime)
    found = engine.answer(engine.query(data, k, class_ or [], where)).found
    hits = [
        {"rank": hit.rank, "id": hit.id, "class": hit.label or None, "score": hit.score, "metadata": hit.metadata}
        for hit in found.hits
    ]
    decision = engine.outcome(found, precision)
    if json_:
        answer = {"nearest": hits[0] if hits else None, "results": hits, "decision": decision}
        out.print_json(data={**answer, "versions": asdict(engine.versions)}, ensure_ascii=False)
    else:
        if decision is not None:
            say(_sentence(decision))
        out.print(hits_table(hits))


def _sentence(decision: dict[str, Any]) -> str:
    if decision["outcome"] == "not_a_car":
        return f"not_a_car: the photo shows a car with a probability of {decision['car_probability']:.2f}"
    told = "{outcome}: {class}, probability {probability:.2f}, {agreement:.0%} of the ten nearest photos"
    return told.format(**decision)
