"""Photos to embeddings with the sha256 of their content: shared by index builds and evaluations."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer.items import sha256_bytes
from model.dataset import Photo, Skipped
from model.embedder import Embedder, Progress
from model.errors import FileUnreadable, ImageRejected
from model.names import printable
from model.parallel import batched, decode_pool, map_in_order, prefetch
from model.runtimes.base import Pending
from model.types import Embeddings, Pixels

Lookup = Callable[[str], Embeddings | None]
"""sha256 of a photo's bytes -> its embedding float32 (D,), or None where it is not known."""


@dataclass(frozen=True, slots=True)
class Usable:
    """A usable photo and the sha256 of the bytes that were read."""

    photo: Photo
    sha256: str


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


class Engine(Protocol):
    """Embeds the photos of a build, and keeps what is done in `work` until the build has been published."""

    def __call__(
        self,
        photos: Sequence[Photo],
        embedder: Embedder,
        known: Lookup,
        contents: Sequence[str],
        work: Path,
        progress: Progress,
    ) -> Iterator[EmbeddedBatch]:
        """Every photo once, in order. `contents` are the sha256 that `known` has an embedding for, or most of them."""
        ...


@dataclass(frozen=True, slots=True)
class _Read:
    """A photo that was read. `crop` is None where its embedding is known already, or where there is a problem."""

    photo: Photo
    sha256: str = ""
    crop: Pixels | None = None
    problem: Skipped | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Photos in order; `contents` are the sha256 of those submitted to the network."""

    photos: list[_Read]
    contents: list[str]
    pending: Pending | None = None


def nothing_known(_sha256: str) -> None:
    """A `Lookup` that knows no embedding."""


def embed_photos(
    photos: Iterable[Photo], embedder: Embedder, known: Lookup = nothing_known, *, learning: bool = False
) -> Iterator[EmbeddedBatch]:
    """Reads, decodes and embeds photos in batches, decoding the next ones while the network works.

    Content that `known` has an embedding for is neither decoded nor embedded, and equal content is embedded once.
    Photos that cannot be read or decoded come back as skipped. `learning` says that `known` knows what was fresh in the
    batches before, so that it need not be held here.
    """
    run = _Run(embedder, known, learning)
    with decode_pool() as pool:
        read = map_in_order(pool, run.read, photos, buffer_size=2 * embedder.batch)
        for batch in prefetch(map(run.submit, batched(read, embedder.batch)), embedder.in_flight):
            yield run.finish(batch)


def copies_among(photos: Iterable[Usable]) -> list[list[str]]:
    """The ids of photos with the same content, in groups of two and more."""
    groups: dict[str, list[str]] = defaultdict(list)
    for one in photos:
        groups[one.sha256].append(one.photo.id)
    return [group for group in groups.values() if len(group) > 1]


class _Run:
    """The state of one call. `read` runs in the decode pool, the other methods in the caller's thread."""

    def __init__(self, embedder: Embedder, known: Lookup, learning: bool) -> None:
        self._embedder = embedder
        self._learning = learning
        self._known = known
        self._submitted: set[str] = set()
        self._vectors: dict[str, Embeddings] = {}

    def read(self, photo: Photo) -> _Read:
        """Reads a photo, and decodes it unless its embedding is known or being computed."""
        try:
            data = photo.read()
            sha256 = sha256_bytes(data)
            if sha256 in self._submitted or self._known(sha256) is not None:
                return _Read(photo, sha256)
            return _Read(photo, sha256, self._embedder.prepare(data))
        except (FileUnreadable, ImageRejected) as problem:  # also of a damaged archive
            return _Read(photo, problem=Skipped.because(printable(photo.id), problem))

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
                embedded.append(Embedded(one.photo, one.sha256, vector))
        return EmbeddedBatch(embedded, skipped, fresh)
