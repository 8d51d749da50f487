"""Photos to embeddings with the sha256 of their content: shared by index builds and evaluations."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer.items import GalleryItem, sha256_bytes
from indexer.stamps import stamp_of
from model.dataset import Item, Photo, Skipped
from model.embedder import Embedder, Progress
from model.errors import FileUnreadable, ImageRejected
from model.names import printable
from model.parallel import batched, decode_pool, map_in_order, prefetch
from model.runtimes.base import Pending
from model.types import Embeddings, Pixels

Lookup = Callable[[str], Embeddings | None]
"""sha256 of a photo's bytes -> its embedding float32 (D,), or None where it is not known."""

Unchanged = Callable[[Photo, bytes], str | None]
"""A photo and the stamp of its file -> the sha256 of its bytes, or None where they have to be read."""


@dataclass(frozen=True, slots=True)
class Usable:
    """A usable photo and the sha256 of the bytes that were read; `stamp` is that of its file, where it has one."""

    photo: Photo
    sha256: str
    stamp: bytes | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Embedded(Usable):
    """A usable photo and its embedding float32 (D,)."""

    embedding: Embeddings


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Consecutive photos, in order. `fresh` holds what the network computed: sha256 -> float32 (D,)."""

    embedded: list[Embedded]
    skipped: list[Skipped]
    fresh: dict[str, Embeddings]

    @property
    def photos(self) -> int:
        return len(self.embedded) + len(self.skipped)


class EmbeddingEngine(Protocol):
    """Embeds the photos of a build, and keeps what is done in `work` until the build has been published."""

    def __call__(
        self,
        photos: Sequence[Photo],
        embedder: Embedder,
        known: Lookup,
        before: Iterable[GalleryItem],
        unchanged: Unchanged,
        work: Path,
        progress: Progress,
    ) -> Iterator[EmbeddedBatch]:
        """Every photo once, in order. `before` are the items of the version before."""
        ...


@dataclass(frozen=True, slots=True)
class _Read:
    """A photo that was read. `crop` is None where its embedding is known already, or where there is a problem."""

    photo: Photo
    sha256: str = ""
    crop: Pixels | None = None
    problem: Skipped | None = None
    stamp: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Photos in order; `contents` are the sha256 of those submitted to the network."""

    photos: list[_Read]
    contents: list[str]
    pending: Pending | None = None


def nothing_known(_sha256: str) -> None:
    """A `Lookup` that knows no embedding."""


def nothing_unchanged(_photo: Photo, _stamp: bytes) -> None:
    """An `Unchanged` that has every photo read."""


def embed_photos(
    photos: Iterable[Photo],
    embedder: Embedder,
    known: Lookup = nothing_known,
    *,
    learning: bool = False,
    unchanged: Unchanged | None = None,
) -> Iterator[EmbeddedBatch]:
    """Reads, decodes and embeds photos in batches, decoding the next ones while the network works.

    Content that `known` has an embedding for is neither decoded nor embedded, and equal content is embedded once.
    Photos that cannot be read or decoded come back as skipped. `learning` says that `known` knows what was fresh in the
    batches before, so that it need not be held here. With `unchanged` files are stamped, and those that it knows are
    not read.
    """
    run = _Run(embedder, known, learning, unchanged)
    with decode_pool() as pool:
        read = map_in_order(pool, run.read, photos, buffer_size=2 * embedder.batch)
        for batch in prefetch(map(run.submit, batched(read, embedder.batch)), embedder.in_flight):
            yield run.finish(batch)


def copies_among(photos: Sequence[Usable]) -> list[list[str]]:
    """The ids of photos with the same content, in groups of two and more."""
    times = Counter(one.sha256 for one in photos)
    groups: dict[str, list[str]] = defaultdict(list)
    for one in photos:
        if times[one.sha256] > 1:
            groups[one.sha256].append(one.photo.id)
    return list(groups.values())


class _Run:
    """The state of one call. `read` runs in the decode pool, the other methods in the caller's thread."""

    def __init__(self, embedder: Embedder, known: Lookup, learning: bool, unchanged: Unchanged | None) -> None:
        self._embedder = embedder
        self._unchanged = unchanged
        self._learning = learning
        self._known = known
        self._submitted: set[str] = set()
        self._vectors: dict[str, Embeddings] = {}

    def read(self, photo: Photo) -> _Read:
        """Reads a photo unless it is unchanged, and decodes it unless its embedding is known or being computed."""
        stamp = sha256 = None
        if self._unchanged is not None and isinstance(photo, Item) and photo.file is not None:
            stamp = stamp_of(photo.file)  # before it is read: who changes it later changes the stamp
            sha256 = self._unchanged(photo, stamp) if stamp is not None else None
        if sha256 is not None and self._has(sha256):
            return _Read(photo, sha256, stamp=stamp)
        try:
            data = photo.read()
            sha256 = sha256_bytes(data)
            crop = None if self._has(sha256) else self._embedder.prepare(data)
            return _Read(photo, sha256, crop, stamp=stamp)
        except (FileUnreadable, ImageRejected) as problem:  # also of a damaged archive
            return _Read(photo, problem=Skipped.because(printable(photo.id), problem))

    def _has(self, sha256: str) -> bool:
        return sha256 in self._submitted or self._known(sha256) is not None

    def submit(self, photos: list[_Read]) -> _Batch:
        """Submits the contents that were not submitted with an earlier batch."""
        new = {one.sha256: one.crop for one in photos if one.crop is not None and one.sha256 not in self._submitted}
        self._submitted |= new.keys()
        if not new:
            return _Batch(photos, [])
        return _Batch(photos, list(new), self._embedder.submit_crops(np.stack(list(new.values()))))

    def finish(self, batch: _Batch) -> EmbeddedBatch:
        """Waits for a batch; each of its photos then has an embedding or the reason why it has none."""
        fresh: dict[str, Embeddings] = {}
        if batch.pending is not None:
            fresh = dict(zip(batch.contents, batch.pending.wait(), strict=True))
        if self._learning:
            self._vectors = fresh
        else:
            self._vectors |= fresh
        embedded: list[Embedded] = []
        skipped: list[Skipped] = []
        for one in batch.photos:
            if one.problem is not None:
                skipped.append(one.problem)
            else:
                vector = self._vectors.get(one.sha256)
                vector = vector if vector is not None else self._known(one.sha256)
                assert vector is not None  # noqa: S101  # known when the photo was read, and nothing is forgotten
                embedded.append(Embedded(one.photo, one.sha256, vector, stamp=one.stamp))
        return EmbeddedBatch(embedded, skipped, fresh)
