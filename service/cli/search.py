"""The command that searches an index directory with one photo."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import IndexOption, RuntimeOption
from service.cli.output import hits_table, out


def search(
    photo: Annotated[Path, typer.Argument(help="JPEG, PNG or WebP.")],
    index_dir: IndexOption = Path("index"),
    k: Annotated[int, typer.Option("-k", help="How many photos, 1 to 100.")] = 5,
    class_: Annotated[list[str] | None, typer.Option("--class", help="Only photos of this class; repeatable.")] = None,
    runtime: RuntimeOption = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Find the photos of a gallery that are nearest to one photo."""
    from model.images.sources import read_photo
    from service.engine import open_index

    data = read_photo(photo)  # before the index is read
    engine = open_index(index_dir, runtime=runtime)
    found = engine.search(data, k, class_ or [])
    hits = [{"rank": hit.rank, "id": hit.id, "class": hit.label, "score": hit.score} for hit in found]
    if json_:
        answer = {"nearest": hits[0] if hits else None, "results": hits, "versions": asdict(engine.versions)}
        out.print_json(data=answer, ensure_ascii=False)
    else:
        out.print(hits_table(hits))
