"""Building an index version: reader -> embedder -> writer, resumable, embedding only what changed."""

import hashlib
import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from indexer.checkpoint import embed_resumably
from indexer.decider import Decider
from indexer.delta import Change, DeltaLog, KnownPhoto
from indexer.distributed.stored import StoredPhoto, is_stored, read_stored
from indexer.embed import (
    Embedded,
    EmbeddedBatch,
    EmbeddingEngine,
    Lookup,
    Unchanged,
    Usable,
    copies_among,
    nothing_known,
    nothing_unchanged,
)
from indexer.items import GalleryItem, ItemNames, ItemTable, RowsByContent, write_items
from indexer.manifest import EMBEDDINGS_NAME, FOR_CHANGES, INDEX_NAME, ITEMS_NAME, SEQUENCE, SKIPPED_NAME, Manifest
from indexer.metadata import Column, Metadata
from indexer.stores.faiss import FaissStore
from indexer.stores.originals import Originals
from indexer.stores.precision import CHOSEN, Storage, StorageChoice
from indexer.versions import KEEP_VERSIONS, IndexDirectory
from model.card import Card, canonical_json, canonical_sha256
from model.dataset import Item, ItemList, Photo, Skipped, read_items, refuse_empty
from model.embedder import Embedder, Progress, silent
from model.errors import GalleryShrank, IndexInvalid, ModelInvalid, PhotosSkipped
from model.storage import make_directory, naming
from model.types import Embeddings, Rows

WORK_NAME = "work"
VERSION_TIME = "%Y%m%dT%H%M%S.%fZ"
CLASSES_TOLD = 5
MOST_REMOVED = 0.1
"""Share of a version's photos that may be gone from the next one without being asked about."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build did; `changed` is False when the current version was up to date.

    `copies` are the ids of photos with the same content, in groups of two and more. `removed` counts the photos of the
    version before that are gone, `removed_classes` are the classes that have none left. `notes` are sentences about the
    classes. `recall` is the storage's measured recall@1 against fp32, None for fp32 itself. `columns` are those of the
    metadata.
    """

    version: str
    photos: int
    classes: int
    embedded: int
    reused: int
    copies: list[list[str]]
    removed: int
    removed_classes: list[str]
    skipped: list[Skipped]
    notes: list[str]
    changed: bool
    storage: Storage
    recall: float | None
    columns: tuple[Column, ...] = ()


def build_index(
    gallery: str | Path,
    index: IndexDirectory | str | Path,
    embedder: Embedder,
    *,
    strict: bool = False,
    keep: int = KEEP_VERSIONS,
    storage: StorageChoice | Storage | None = None,
    class_depth: int | None = None,
    exclude: Sequence[str] | None = None,
    allow_removals: bool = False,
    trust_mtime: bool = False,
    delta: DeltaLog | None = None,
    engine: EmbeddingEngine = embed_resumably,
    progress: Progress = silent,
) -> BuildResult:
    """Embeds a gallery and publishes it as the current version of an index.

    Embeddings are reused, by the photo's content, from the current version and from an interrupted build. With
    `strict`, PhotosSkipped is raised and nothing published when a photo cannot be used. `storage` is by default the
    current version's, and `auto` in a new index. `class_depth` and `exclude` are those of `read_items`, by default as
    the current version was built with from the same gallery. With `trust_mtime` files are not read again that have the
    `indexer.stamps` of the current version. What the log `delta` says of an id wins over the folder; it is pruned then.

    Raises DataInvalid when the gallery cannot be used, GalleryShrank when more than a tenth of the same gallery's
    photos is gone and removals are not allowed (a folder may be not mounted), IndexLocked when another process is
    building, StorageTooLossy when vectors in the wanted storage do not find what they find in fp32, and IndexInvalid
    when the new version cannot be written or loaded; CURRENT is then untouched.
    """
    index = index if isinstance(index, IndexDirectory) else IndexDirectory(Path(index))
    with index.lock():
        current, told = _current(index)
        found, reading = _read(gallery, index.root, told, class_depth, exclude)
        before = () if current is None else ItemTable(index.path_of(current.id) / ITEMS_NAME)
        # The old version's vectors are in memory during this call only.
        known = published_embeddings(index, current, embedder.embedding_id, before)
        photos, known, changes = _with_log(found.items, known, delta, embedder.embedding_id)
        unchanged = _unchanged_since(index, current, gallery) if trust_mtime else nothing_unchanged
        batches = engine(photos, embedder, known, before, unchanged, _work_of(index, embedder), progress)
        embedded, skipped, fresh = _written(batches, found.skipped, index.root / WORK_NAME)
        del known, unchanged, batches
        _refuse_unusable(gallery, embedded, skipped, strict)
        removed = _removed(before, gallery, embedded, {change.id for change in changes})
        if not allow_removals and _is_of(gallery, current):
            _refuse_shrunk(gallery, removed, len(before))
        if changes:
            reading[SEQUENCE] = changes[-1].sequence
        item_of = partial(_item_of, gallery)
        if trust_mtime and _has_none_of_the_stamps(before, embedded):
            current = None  # gives way to a version with these, so that the next run need not read the photos
        choice = str(storage or choice_of(told))
        manifest, changed = publish_version(
            index, current, embedder, _root_of(gallery), item_of, embedded, skipped, choice, reading
        )
        shutil.rmtree(index.root / WORK_NAME, ignore_errors=True)
        index.clean(keep)
        if delta is not None:
            delta.prune()
    notes = [note for note in (found.doubt, *found.notes) if note]
    return result_of(manifest, changed, embedded, skipped, notes, fresh=fresh, removed=removed)


def _has_none_of_the_stamps(before: Iterable[GalleryItem], embedded: Sequence[Usable]) -> bool:
    stamps = {one.stamp for one in embedded if one.stamp}
    return bool(stamps) and stamps.isdisjoint(item.stamp for item in before)


def result_of(
    manifest: Manifest,
    changed: bool,
    embedded: Sequence[Usable],
    skipped: list[Skipped],
    notes: list[str],
    *,
    fresh: int = 0,
    removed: Sequence[GalleryItem] = (),
) -> BuildResult:
    """What a build did, by the photos of its version; `fresh` of them were embedded."""
    labels = {one.photo.label for one in embedded}
    return BuildResult(
        version=manifest.id,
        photos=len(embedded),
        classes=len(labels - {""}),
        embedded=fresh,
        reused=len(embedded) - fresh,
        copies=copies_among(embedded),
        removed=len(removed),
        removed_classes=sorted({item.label for item in removed if item.label} - labels),
        skipped=skipped,
        notes=notes,
        changed=changed,
        storage=manifest.storage,
        recall=manifest.recall,
        columns=_metadata_of(embedded).columns,
    )


def _metadata_of(embedded: Sequence[Usable]) -> Metadata:
    return Metadata.of([one.photo.metadata if isinstance(one.photo, Item | KnownPhoto) else {} for one in embedded])


def _with_log(
    items: Sequence[Photo], published: Lookup, delta: DeltaLog | None, embedding_id: str
) -> tuple[Sequence[Photo], Lookup, list[Change]]:
    """The photos of a folder with what the log says of them, in the order of their ids; embeddings of both; changes."""
    if delta is None:
        return items, published, []
    changes = delta.last_of_each()
    changed = {change.id for change in changes}
    left = [item for item in items if item.id not in changed]

    def known(sha256: str) -> Embeddings | None:
        vector = published(sha256)
        return vector if vector is not None else delta.embedding(sha256, lambda name: name == embedding_id)

    return sorted([*left, *delta.photos_put(changes)], key=lambda photo: photo.id), known, changes


def _read(
    gallery: str | Path, index: Path, told: Manifest | None, class_depth: int | None, exclude: Sequence[str] | None
) -> tuple[ItemList, dict[str, Any]]:
    """Reads a gallery, by default as for the version before, and says what the next one has to remember of that."""
    source = _source_of(gallery)
    before = told.gallery if told is not None and told.gallery.get("source") == source else {}
    repeated: list[str] = []
    if class_depth is None and (class_depth := before.get("class_depth")) is not None:
        repeated.append(f"--class-depth {class_depth}")
    if exclude is None:
        exclude = before.get("exclude", [])
        repeated += [f"--exclude {shlex.quote(pattern)}" for pattern in exclude]
    exclude = [pattern for pattern in exclude if pattern]
    if is_stored(gallery):
        found = read_stored(str(gallery), class_depth=class_depth, exclude=exclude)
    else:
        found = read_items(Path(gallery), class_depth=class_depth, exclude=exclude, without=index)
    if repeated:
        found = replace(found, notes=(f"The gallery is read as before, with {' '.join(repeated)}.", *found.notes))
    plain = class_depth is None and not exclude
    return found, {} if plain else {"source": source, "class_depth": class_depth, "exclude": exclude}


def _work_of(index: IndexDirectory, embedder: Embedder) -> Path:
    """Where an engine keeps what it has embedded with a model."""
    return index.root / WORK_NAME / canonical_sha256([embedder.embedding_id])[:16]


def _written(
    batches: Iterable[EmbeddedBatch], skipped_before: Sequence[Skipped], work: Path
) -> tuple[list[Usable], list[Skipped], int]:
    """Usable photos, skipped ones, and how many the network embedded; writes the rows of usable ones into a file."""
    embedded: list[Usable] = []
    skipped = list(skipped_before)
    fresh, vectors = 0, work / EMBEDDINGS_NAME
    make_directory(work)
    with naming(vectors), vectors.open("wb") as file:
        for batch in batches:
            fresh += len(batch.fresh)
            embedded += [Usable(one.photo, one.sha256, stamp=one.stamp) for one in batch.embedded]
            file.writelines(vector_bytes(batch.embedded))
            skipped += batch.skipped
    return embedded, skipped, fresh


def _unchanged_since(index: IndexDirectory, current: Manifest | None, gallery: str | Path) -> Unchanged:
    """Knows photos of the current version, where it is of the same gallery, by their ids, paths and stamps."""
    if current is None or not _is_of(gallery, current):
        return nothing_unchanged
    table = ItemTable(index.path_of(current.id) / ITEMS_NAME)  # closed with the last reference to it
    return lambda photo, stamp: table.sha256_of_unchanged(photo.id, _path_in(gallery, photo), stamp)


def vector_bytes(embedded: Iterable[Embedded]) -> Iterator[bytes]:
    """The rows of `embeddings.f32`."""
    return (one.embedding.astype("<f4", copy=False).tobytes() for one in embedded)


def published_embeddings(
    index: IndexDirectory, current: Manifest | None, embedding_id: str, items: Iterable[GalleryItem] | None = None
) -> Lookup:
    """Looks up embeddings of a version that has the same embedding id; `items` are its items where they are known.

    They are as the network gave them, however the index stores them: rounded vectors must not be rounded again.
    """
    if current is None or current.embedding_id != embedding_id:
        return nothing_known
    directory = index.path_of(current.id)
    try:
        of_rows = embeddings_of(directory, current)
        rows = RowsByContent(ItemTable(directory / ITEMS_NAME) if items is None else items)
    except (IndexInvalid, OSError, ValueError):
        return nothing_known  # damaged; the new version replaces it

    def known(sha256: str) -> Embeddings | None:
        row = rows.row_of(sha256)
        return None if row is None else of_rows(np.array([row]))[0]

    return known


def embeddings_of(directory: Path, manifest: Manifest) -> Callable[[Rows], Embeddings]:
    """Rows int64 (n,) of a version -> float32 (n, D), as the network gave them; raises IndexInvalid or OSError."""
    if not manifest.storage.lossy:
        return FaissStore.read(directory / INDEX_NAME, manifest.dim, manifest.count).vectors
    return Originals.read(directory / EMBEDDINGS_NAME, manifest.dim, manifest.count).at


def _refuse_unusable(gallery: str | Path, embedded: Sequence[Usable], skipped: Sequence[Skipped], strict: bool) -> None:
    refuse_empty(gallery, len(embedded), skipped)
    if strict and skipped:
        raise PhotosSkipped(
            f"{len(skipped)} photos cannot be used, the first is {skipped[0].name}: {skipped[0].message} "
            "Nothing was published, because of --strict."
        )


class StoredModel(NamedTuple):
    """What a version needs of its model where nothing is embedded; an `Embedder` has it too."""

    directory: Path
    card: Card
    embedding_id: str
    dim: int


def publish_version(
    index: IndexDirectory,
    current: Manifest | None,
    embedder: Embedder | StoredModel,
    root: str,
    item_of: Callable[[int, Usable], GalleryItem],
    embedded: Sequence[Usable],
    skipped: Sequence[Skipped],
    choice: str,
    reading: dict[str, Any],
) -> tuple[Manifest, bool]:
    """Publishes photos whose vectors are the rows of `work/embeddings.f32`; gives back the current version where that
    is the same.

    `item_of` makes the item of a row, more than once: all of them would take 270 MB a million. `root` is the folder
    that their paths are relative to, `reading` what the next version has to remember. The caller holds the lock. True
    for a new version.
    """
    items = partial(map, item_of, range(len(embedded)), embedded)
    metadata = _metadata_of(embedded)
    model_sha256 = index.publish_model(embedder.directory)
    made_with = [root, model_sha256, embedder.embedding_id, choice]
    content = _content_sha256(items(), skipped, made_with, *metadata.content, *reading.items())
    names = ItemNames((one.photo.id, one.photo.label) for one in embedded)
    has_decider = current is not None and current.files.keys() >= FOR_CHANGES
    whole = has_decider or not names.labels
    if current is not None and current.content_sha256 == content and whole and index.holds(current):
        return current, False
    vectors = index.root / WORK_NAME / EMBEDDINGS_NAME
    originals = Originals.read(vectors, embedder.dim, len(embedded))
    now = _time_of_version(index)
    manifest = Manifest(
        id=f"{now:{VERSION_TIME}}-{content[:8]}",
        created=now.isoformat(timespec="seconds"),
        dim=embedder.dim,
        count=len(embedded),
        metric="inner_product",
        index_recipe={},
        model_sha256=model_sha256,
        model_name=embedder.card.name,
        embedding_id=embedder.embedding_id,
        preprocessing_sha256=embedder.card.input.sha256,
        content_sha256=content,
        gallery={"root": root, "classes": len(names.labels), "skipped": len(skipped), **reading},
        files={},
    )

    def write(directory: Path) -> Manifest:
        store, recipe = index.write_vectors(directory, originals, choice)
        decider = Decider.of(store, originals.matrix, names.codes, names.labels)
        if store.storage.lossy:
            shutil.move(vectors, directory / EMBEDDINGS_NAME)  # it stays mapped
        write_items(directory / ITEMS_NAME, items(), metadata)
        if decider is not None:
            decider.write(directory)
        listed = json.dumps([asdict(one) for one in skipped], indent=1, ensure_ascii=False)
        (directory / SKIPPED_NAME).write_text(listed, encoding="utf-8")
        return replace(manifest, index_recipe=recipe)

    return index.publish(manifest.id, write), True


def _content_sha256(items: Iterable[GalleryItem], skipped: Sequence[Skipped], *others: object) -> str:
    """The hash of [items, skipped, *others] as JSON, which is never in memory as a whole."""
    digest = hashlib.sha256(b"[[")
    for item in items:
        digest.update(
            b"," * (item.row > 0) + canonical_json([item.id, item.label, item.sha256, os.fsdecode(item.path)])
        )
    rest = canonical_json([[(one.name, one.code) for one in skipped], *others])
    digest.update(b"]," + rest[1:])
    return digest.hexdigest()


def _current(index: IndexDirectory) -> tuple[Manifest | None, Manifest | None]:
    """The current version if it verifies, and what it says of itself even where it is damaged."""
    try:
        manifest = index.manifest(index.current())
    except IndexInvalid:  # and its kinds: there is none
        return None, None
    try:
        return index.verify(manifest.id), manifest
    except (IndexInvalid, ModelInvalid):
        return None, manifest  # everything is built anew


def choice_of(told: Manifest | None) -> str:
    """The storage that was chosen for a version."""
    return "auto" if told is None or CHOSEN in told.index_recipe else str(told.storage)


def _source_of(gallery: str | Path) -> str:
    """The gallery, without links where it is local, as a version remembers it."""
    return str(gallery).rstrip("/") if "://" in str(gallery) else str(Path(gallery).resolve())


def _folder_of(gallery: str | Path) -> Path:
    """The folder that paths are relative to: the gallery, or the one that its manifest lies in."""
    return Path(gallery) if Path(gallery).is_dir() else Path(gallery).parent


def _root_of(gallery: str | Path) -> str:
    """That folder without links, or what is not a folder of this machine, as a version remembers it."""
    return _source_of(gallery if is_stored(gallery) else _folder_of(gallery))


def _is_of(gallery: str | Path, version: Manifest | None) -> bool:
    """Tells if a version was built from this gallery."""
    return version is not None and version.gallery["root"] == _root_of(gallery)


def _item_of(gallery: str | Path, row: int, one: Usable) -> GalleryItem:
    return GalleryItem(row, one.photo.id, one.photo.label, one.sha256, _path_in(gallery, one.photo), one.stamp)


def _path_in(gallery: str | Path, photo: Photo) -> bytes:
    """The path of a photo relative to its gallery, as raw bytes; empty for one of the log."""
    if isinstance(photo, KnownPhoto):
        return photo.path
    assert isinstance(photo, Item)  # noqa: S101  # from read_items or read_stored
    if isinstance(photo, StoredPhoto):
        return os.fsencode(photo.path)
    folder = _folder_of(gallery)
    text, above = str(photo.path), f"{folder}/"
    if text.startswith(above) and "/.." not in text:  # as nearly all are; the other way takes ten times as long
        return os.fsencode(text.removeprefix(above))
    # A gallery may be reached through a link; its photos still lie inside it then.
    inside = photo.path.is_relative_to(folder)
    return os.fsencode(os.path.relpath(photo.path, folder if inside else _root_of(gallery)))


def _removed(
    before: Iterable[GalleryItem], gallery: str | Path, embedded: Sequence[Usable], changed: Set[str]
) -> list[GalleryItem]:
    """The photos of the version before that are gone, by their paths in the gallery, and not by the log."""
    paths = {_path_in(gallery, one.photo) for one in embedded}
    return [item for item in before if item.path not in paths and item.path and item.id not in changed]


def _refuse_shrunk(gallery: str | Path, removed: Sequence[GalleryItem], photos: int) -> None:
    """Raises GalleryShrank where too many of so many photos are gone."""
    if len(removed) > MOST_REMOVED * photos:
        classes = Counter(item.label or "no class" for item in removed).most_common(CLASSES_TOLD)
        named = ", ".join(f"{label} {count}" for label, count in classes)
        raise GalleryShrank(
            f"{len(removed)} photos of the version before are gone ({named}). Nothing was published. Look whether "
            f"{gallery} is whole; if it is, --allow-removals."
        )


def _time_of_version(index: IndexDirectory) -> datetime:
    """Now, but after the newest version where the clock went back: the order of versions is that of their names."""
    now, newest = datetime.now(UTC), max(index.versions(), default="")
    try:
        published = datetime.strptime(newest.partition("-")[0], VERSION_TIME).replace(tzinfo=UTC)
    except ValueError:
        return now
    return max(now, published + timedelta(microseconds=1))
