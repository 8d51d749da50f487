"""The commands that start a server: serve and demo."""

from pathlib import Path
from typing import Annotated

import typer

HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")]


def serve(
    index_dir: Annotated[Path | None, typer.Option("--index", help="Index directory (CARSEARCH_INDEX_DIR).")] = None,
    model: Annotated[str | None, typer.Option(help="Refuse an index that another model built.")] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
) -> None:
    """Serve an index over HTTP; docs/settings.md lists all settings."""
    from service.http.server import listen
    from service.http.server import serve as run
    from service.settings import load_settings

    settings = load_settings(index_dir=index_dir, model=model)
    with listen(host, port) as listener:  # first: a port that is taken must leave nothing behind
        run(settings, listener)


def demo(
    port: PortOption = 8000,
    host: HostOption = "127.0.0.1",
    check: Annotated[
        bool, typer.Option("--check", help="Compare the results with the promised ones, and end.")
    ] = False,
    dir_: Annotated[
        Path | None, typer.Option("--dir", help="Where the index goes; by default into the user's cache directory.")
    ] = None,
    seed: Annotated[
        Path | None, typer.Option(help="Publish the demo's index in this directory if it has none, and end.")
    ] = None,
) -> None:
    """Index, evaluate and serve the gallery that ships, with the model that ships, and say what to try."""
    from service.demo import command

    if seed is not None:
        command.seed(seed)
    elif check:
        command.check(dir_)
    else:
        command.run(host, port, dir_)
