"""The command that searches with one photo, in an index directory or through a running server."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.options import IndexOption, RuntimeOption
from service.cli.output import hits_table, out

TIMEOUT_S = 30.0


def search(
    photo: Annotated[Path, typer.Argument(help="JPEG, PNG or WebP.")],
    index_dir: IndexOption = Path("index"),
    url: Annotated[str | None, typer.Option(help="Ask this server instead of an index directory.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many photos, 1 to 100.")] = 5,
    class_: Annotated[list[str] | None, typer.Option("--class", help="Only photos of this class; repeatable.")] = None,
    runtime: RuntimeOption = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Find the photos of a gallery that are nearest to one photo."""
    from model.images.sources import read_photo

    data = read_photo(photo)
    if url is not None:
        answer = _ask(url, data, k, class_ or [])
    else:
        from service.engine import open_index

        engine = open_index(index_dir, runtime=runtime)
        found = engine.search(data, k, class_ or [])
        hits = [{"rank": hit.rank, "id": hit.id, "class": hit.label, "score": hit.score} for hit in found]
        answer = {"nearest": hits[0] if hits else None, "results": hits, "versions": asdict(engine.versions)}
    if json_:
        out.print_json(data=answer, ensure_ascii=False)
    else:
        out.print(hits_table(answer["results"]))


def _ask(url: str, data: bytes, k: int, classes: Sequence[str]) -> dict[str, Any]:
    """POST /search of a running server; returns the answer as it was given.

    Raises ServerRefused with the server's own code and sentence, ServerUnreachable when there is no such server.
    """
    import httpx

    from model.errors import ServerRefused, ServerUnreachable

    query = {"k": str(k), "class": list(classes)}
    try:
        response = httpx.post(
            f"{url.rstrip('/')}/search", params=query, files={"file": ("photo", data)}, timeout=TIMEOUT_S
        )
        body: Any = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
        raise ServerUnreachable(f"{url} gave no answer that can be read: {problem}.") from problem
    if not isinstance(body, dict) or (response.is_success and "results" not in body):
        raise ServerUnreachable(f"{url} answers, but not as a carsearch server.")
    if response.is_success:
        return body
    raise ServerRefused(str(body.get("code", "internal")), str(body.get("detail", f"status {response.status_code}")))
