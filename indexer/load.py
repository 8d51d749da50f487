"""An index version read into memory, as a server holds it, and its model."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from indexer.items import ItemNames, ItemTable
from indexer.manifest import INDEX_NAME, ITEMS_NAME, Manifest
from indexer.stores.faiss import FaissStore
from model.card import INT8
from model.embedder import Embedder
from model.errors import DimMismatch, IndexInvalid, ModelMismatch

if TYPE_CHECKING:
    from indexer.versions import IndexDirectory


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


def load_embedder(
    index: "IndexDirectory", manifest: Manifest, runtime: str, cache_dir: Path | None, previous: Embedder | None
) -> Embedder:
    """The model of a version, `previous` if that is the same; raises DimMismatch, ModelMismatch or ModelInvalid."""
    if previous is not None and _gives(previous, manifest):
        embedder = previous
    else:
        path = index.model_path(manifest.model_sha256)
        embedder = Embedder.load_like(path, manifest.embedding_id, runtime, cache_dir)
    again = f"build the index again: carsearch index GALLERY --index {index.root}"
    if not _gives(embedder, manifest):
        precision = embedder.card.precision_of(manifest.embedding_id)
        way_out = f"use the runtime {'openvino' if precision == INT8 else 'torch'}, or " if precision else ""
        raise ModelMismatch(
            f"Index version {manifest.id} was embedded in {precision or manifest.embedding_id}, and the runtime "
            f"{embedder.runtime.name} runs its model in {embedder.runtime.precision}; {way_out}{again} "
            f"--runtime {embedder.runtime.name}"
        )
    if manifest.dim != embedder.dim:
        directory = index.path_of(manifest.id)
        raise DimMismatch(f"{directory} has {manifest.dim} dimensions, and its model gives {embedder.dim}; {again}")
    return embedder


def _gives(embedder: Embedder, manifest: Manifest) -> bool:
    """Whether an embedder's queries may be searched in an index."""
    same = embedder.model_sha256 == manifest.model_sha256
    return same and embedder.card.interchangeable(manifest.embedding_id, embedder.embedding_id)
