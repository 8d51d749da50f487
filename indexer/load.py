"""An index version read into memory, as a server holds it."""

from pathlib import Path
from typing import NamedTuple

from indexer.items import ItemNames, ItemTable
from indexer.manifest import INDEX_NAME, ITEMS_NAME, Manifest
from indexer.stores.faiss import FaissStore
from model.errors import IndexInvalid


class Contents(NamedTuple):
    """A version in memory."""

    store: FaissStore
    items: ItemTable
    names: ItemNames


def read_contents(directory: Path, manifest: Manifest) -> Contents:
    """Reads a version whose files have been verified; raises IndexInvalid when they are not what its manifest says."""
    store = FaissStore.read(directory / INDEX_NAME, manifest.dim, manifest.count, manifest.storage)
    items = ItemTable(directory / ITEMS_NAME)
    try:
        if len(items) != manifest.count:
            raise IndexInvalid(f"{directory / ITEMS_NAME} has {len(items)} items for {manifest.count} vectors.")
        return Contents(store, items, items.names())
    except IndexInvalid:
        items.close()
        raise
