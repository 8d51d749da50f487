"""Folding the log of changes into a new version, without a network and without the gallery's folder."""

import json
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
    vector_bytes,
)
from indexer.delta import DeltaLog, KnownPhoto
from indexer.embed import Embedded
from indexer.items import GalleryItem, ItemTable
from indexer.manifest import EMBEDDINGS_NAME, ITEMS_NAME, SEQUENCE, SKIPPED_NAME, Manifest
from indexer.versions import KEEP_VERSIONS, IndexDirectory
from model.card import load_card
from model.dataset import Skipped
from model.errors import EmptyGallery, ModelMismatch
from model.storage import make_directory, naming


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
        kept = [one for one in _embedded_in(directory, current) if one.photo.id not in changed]
        put = [_embedded_by_servers(delta, photo, model) for photo in delta.photos_put(changes)]
        embedded = sorted([*kept, *put], key=lambda one: one.photo.id)
        if not embedded:
            raise EmptyGallery("Every photo has been deleted, and a version needs one; nothing was published.")
        listed = json.loads((directory / SKIPPED_NAME).read_bytes())
        skipped = [Skipped(**one) for one in listed]
        reading = {name: value for name, value in current.gallery.items() if name not in ("root", "classes", "skipped")}
        root = current.gallery["root"]
        manifest, new = current, False
        if changes:
            reading[SEQUENCE] = changes[-1].sequence
            items = [_item_of(row, one) for row, one in enumerate(embedded)]
            vectors = index.root / WORK_NAME / EMBEDDINGS_NAME
            make_directory(vectors.parent)
            with naming(vectors), vectors.open("wb") as file:
                file.writelines(vector_bytes(embedded))
            manifest, new = publish_version(
                index, current, model, root, items, embedded, skipped, choice_of(current), reading
            )
            vectors.unlink(missing_ok=True)  # in fp32 it is no part of the version
        index.clean(keep)
        delta.prune()
    notes = [f"Folded in: {len(put)} photos put, {len(changes) - len(put)} ids deleted."]
    return result_of(manifest, new, embedded, skipped, notes)


def _embedded_in(directory: Path, manifest: Manifest) -> list[Embedded]:
    """The photos of a version."""
    vectors = embeddings_of(directory, manifest)(np.arange(manifest.count))
    with closing(ItemTable(directory / ITEMS_NAME)) as table:
        items = table.all()
        cells = table.metadata_of([item.id for item in items])
        columns = [column.name for column in table.columns]
    found = []
    for item, vector in zip(items, vectors, strict=True):
        own = cells.get(item.id, {})
        metadata = {name: str(own.get(name, "")) for name in columns}
        photo = KnownPhoto(item.id, item.label, item.sha256, metadata, item.path)
        found.append(Embedded(photo, item.sha256, vector))
    return found


def _embedded_by_servers(delta: DeltaLog, photo: KnownPhoto, model: StoredModel) -> Embedded:
    vector = delta.embedding(photo.sha256, lambda name: model.card.interchangeable(model.embedding_id, name))
    if vector is None:
        raise ModelMismatch(
            f'The photo that was put as "{photo.id}" has no embedding of the model {model.card.name} yet: start a '
            "server on this version, or run carsearch index GALLERY."
        )
    return Embedded(photo, photo.sha256, vector)


def _item_of(row: int, one: Embedded) -> GalleryItem:
    assert isinstance(one.photo, KnownPhoto)  # noqa: S101  # from this module
    return GalleryItem(row, one.photo.id, one.photo.label, one.sha256, one.photo.path)
