"""The command that lists the classes of an index."""

from contextlib import closing
from pathlib import Path

from service.cli.options import IndexOption, JsonOption
from service.cli.output import out, say


def classes(index_dir: IndexOption = Path("index"), json_: JsonOption = False) -> None:
    """List the classes of an index with their numbers of photos."""
    from indexer.items import ItemTable
    from indexer.manifest import ITEMS_NAME
    from service.directory import open_directory

    index = open_directory(index_dir)
    current = index.manifest(index.current()).id
    with closing(ItemTable(index.path_of(current) / ITEMS_NAME)) as table:
        found = table.classes()
    if json_:
        out.print_json(data=found, ensure_ascii=False)
        return
    for label, photos in found.items():
        say(f"{photos:>7}  {label}")
