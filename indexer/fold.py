"""Folding the log of changes into a new version, without a network and without the gallery's folder."""

import json
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import closing
from pathlib import Path

import numpy as np

from indexer.build import (
    WORK_NAME,
    BuildResult,
    StoredModel,
    choice_of,
    embeddings_of,
    publish_version,
    result_of,
)
from indexer.delta import DeltaLog, KnownPhoto
from indexer.embed import Usable
from indexer.items import GalleryItem, ItemTable
from indexer.manifest import EMBEDDINGS_NAME, ITEMS_NAME, SEQUENCE, SKIPPED_NAME
from indexer.versions import KEEP_VERSIONS, IndexDirectory
from model.card import load_card
from model.dataset import NO_METADATA, Skipped
from model.errors import EmptyGallery, ModelMismatch
from model.storage import make_directory, naming
from model.types import Embeddings, Rows

PUT = -1
"""Instead of a row: a photo of the log."""

ROWS_PER_WRITE = 8_192


def fold_index(index: IndexDirectory, delta: DeltaLog, *, keep: int = KEEP_VERSIONS) -> BuildResult:
    """Publishes the current version with all changes of the log; keeps `keep` versions, and prunes the log.

    Raises as `build_index`, EmptyGallery where nothing is left, and ModelMismatch for a photo that no server has
    embedded with this version's model yet.
    """
    with index.lock():
        current = index.verify(index.current())
        changes = delta.last_of_each(current.sequence)
        changed = {change.id for change in changes}
        directory, model_path = index.path_of(current.id), index.model_path(current.model_sha256)
        model = StoredModel(model_path, load_card(model_path), current.embedding_id, current.dim)
        put = [(Usable(photo, photo.sha256), PUT) for photo in delta.photos_put(changes)]
        # What is kept has its row in the version.
        both = sorted([*_photos_in(directory, changed), *put], key=lambda one: one[0].photo.id)
        embedded, rows = [one for one, _ in both], np.array([row for _, row in both], np.int64)
        if not embedded:
            raise EmptyGallery("Every photo has been deleted, and a version needs one; nothing was published.")
        listed = json.loads((directory / SKIPPED_NAME).read_bytes())
        skipped = [Skipped(**one) for one in listed]
        reading = {name: value for name, value in current.gallery.items() if name not in ("root", "classes", "skipped")}
        root = current.gallery["root"]
        manifest, new = current, False
        if changes:
            reading[SEQUENCE] = changes[-1].sequence
            vectors = index.root / WORK_NAME / EMBEDDINGS_NAME
            make_directory(vectors.parent)
            try:
                _write_vectors(vectors, embeddings_of(directory, current), rows, _of_servers(delta, put, model))
                manifest, new = publish_version(
                    index, current, model, root, _item_of, embedded, skipped, choice_of(current), reading
                )
            finally:
                vectors.unlink(missing_ok=True)  # in fp32 it is no part of the version
        index.clean(keep)
        delta.prune()
    notes = [f"Folded in: {len(put)} photos put, {len(changes) - len(put)} ids deleted."]
    return result_of(manifest, new, embedded, skipped, notes)


def _photos_in(directory: Path, changed: Set[str]) -> Iterator[tuple[Usable, int]]:
    """The photos of a version that were not changed, and their rows."""
    with closing(ItemTable(directory / ITEMS_NAME)) as table:
        columns = [column.name for column in table.columns]
        cells = table.metadata_of([item.id for item in table]) if columns else {}
        for item in table:
            if item.id not in changed:
                own = cells.get(item.id, {})
                metadata = {name: str(own.get(name, "")) for name in columns} if columns else NO_METADATA
                photo = KnownPhoto(item.id, item.label, item.sha256, metadata, item.path)
                yield Usable(photo, item.sha256, stamp=item.stamp), item.row


def _write_vectors(path: Path, of_version: Callable[[Rows], Embeddings], rows: Rows, put: Iterator[Embeddings]) -> None:
    """Writes the vectors of some rows of a version, int64 (n,), in parts; the next of `put` where a row is PUT."""
    with naming(path), path.open("wb") as file:
        for start in range(0, len(rows), ROWS_PER_WRITE):
            part = rows[start : start + ROWS_PER_WRITE]
            kept = of_version(part[part != PUT])
            block = np.empty((len(part), kept.shape[1]), "<f4")
            block[part != PUT] = kept
            for place in np.flatnonzero(part == PUT):
                block[place] = next(put)
            file.write(block.data)


def _of_servers(delta: DeltaLog, put: Iterable[tuple[Usable, int]], model: StoredModel) -> Iterator[Embeddings]:
    """The vectors float32 (D,) that servers made of photos that were put, in the order of their ids."""
    for one, _ in sorted(put, key=lambda one: one[0].photo.id):
        vector = delta.embedding(one.sha256, lambda name: model.card.interchangeable(model.embedding_id, name))
        if vector is None:
            raise ModelMismatch(
                f'The photo that was put as "{one.photo.id}" has no embedding of the model {model.card.name} yet: '
                "start a server on this version, or run carsearch index GALLERY."
            )
        yield vector


def _item_of(row: int, one: Usable) -> GalleryItem:
    assert isinstance(one.photo, KnownPhoto)  # noqa: S101  # from this module
    return GalleryItem(row, one.photo.id, one.photo.label, one.sha256, one.photo.path, one.stamp)
