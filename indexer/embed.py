"""Photos to embeddings with their content's sha256: what building an index and evaluating have in common."""

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from indexer.items import sha256_bytes
from model.dataset import Photo, Skipped, printable
from model.embedder import Embedder, Submitted, batches, decode_pool, map_in_order
from model.errors import FileUnreadable, ImageRejected
from model.runtimes.base import running_ahead
from model.types import Embeddings


@dataclass(frozen=True, slots=True)
class Embedded:
    """A photo that could be used: the sha256 of the bytes that were read, and float32 (D,), unit length."""

    photo: Photo
    sha256: str
    embedding: Embeddings


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """A run of photos in their order. `fresh` holds what the network computed: sha256 -> float32 (D,)."""

    embedded: list[Embedded]
    skipped: list[Skipped]
    fresh: dict[str, Embeddings]

    @property
    def photos(self) -> int:
        return len(self.embedded) + len(self.skipped)


TAKEN: "Future[Any]" = Future()
"""In place of what a content became: that it was there is remembered, its pixels are not."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A photo that was read. `content` is what its bytes became, or will, where nobody knew their embedding."""

    photo: Photo
    sha256: str = ""
    content: "Future[Any] | None" = None
    problem: Skipped | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Photos in their order, and those contents of theirs that the network works on."""

    photos: list[_Read]
    contents: list[str]
    submitted: Submitted | None


def nothing_known(_sha256: str) -> None:
    """Every photo has to be embedded."""


def embed_photos(
    photos: Iterable[Photo], embedder: Embedder, known: Callable[[str], Embeddings | None] = nothing_known
) -> Iterator[EmbeddedBatch]:
    """Reads, decodes and embeds photos in batches, decoding the next ones while the network works.

    Content that `known` has an embedding for is neither decoded nor embedded; equal content is decoded and embedded
    once. Photos that cannot be read or decoded come back as skipped.
    """
    run = _Run(embedder, known)
    with decode_pool() as pool:
        read = map_in_order(pool, run.read, photos, ahead=2 * embedder.batch)
        for batch in running_ahead(map(run.submit, batches(read, embedder.batch)), embedder.in_flight):
            yield run.finish(batch)


class _Run:
    """What one call has seen. `read` runs in many threads, the others in the caller's."""

    def __init__(self, embedder: Embedder, known: Callable[[str], Embeddings | None]) -> None:
        self._embedder = embedder
        self._known = known
        self._lock = threading.Lock()
        self._contents: dict[str, Future[Any]] = {}
        self._begun: set[str] = set()
        self._vectors: dict[str, Embeddings] = {}
        self._unusable: dict[str, Skipped] = {}

    def read(self, photo: Photo) -> _Read:
        """Reads a photo, and stages its content unless somebody does or did."""
        try:
            data = photo.read()
        except (FileUnreadable, ImageRejected) as problem:  # the second of a member that its archive has damaged
            return _Read(photo, problem=Skipped.because(printable(photo.id), problem))
        sha256 = sha256_bytes(data)
        if self._known(sha256) is not None:
            return _Read(photo, sha256)
        with self._lock:
            mine = sha256 not in self._contents
            content = self._contents.setdefault(sha256, Future())
        if mine:
            self._stage(data, content)
        return _Read(photo, sha256, content)

    def _stage(self, data: bytes, content: "Future[Any]") -> None:
        try:
            content.set_result(self._embedder.preparation.stage(data))
        except ImageRejected as problem:
            content.set_result(Skipped.because("", problem))  # an exception would keep the photo in memory
        except BaseException as problem:
            content.set_exception(problem)  # for whoever waits for it in another batch
            raise

    def submit(self, photos: list[_Read]) -> _Batch:
        """Starts on the contents that no batch before this one had."""
        staged: dict[str, Any] = {}
        for one in photos:
            if one.content is None or one.sha256 in self._begun:
                continue
            self._begun.add(one.sha256)
            outcome = one.content.result()
            if isinstance(outcome, Skipped):
                self._unusable[one.sha256] = outcome
            else:
                staged[one.sha256] = outcome
            self._contents[one.sha256] = TAKEN
        return _Batch(photos, list(staged), self._embedder.submit(list(staged.values())) if staged else None)

    def finish(self, batch: _Batch) -> EmbeddedBatch:
        """Waits for a batch and gives each of its photos an embedding or a reason."""
        fresh: dict[str, Embeddings] = {}
        if batch.submitted is not None:
            fresh = dict(zip(batch.contents, batch.submitted.result(), strict=True))
            for row, problem in batch.submitted.rejected.items():
                self._unusable[batch.contents[row]] = Skipped.because("", problem)
                del fresh[batch.contents[row]]
        self._vectors |= fresh
        embedded: list[Embedded] = []
        skipped: list[Skipped] = []
        for one in batch.photos:
            if one.problem is not None:
                skipped.append(one.problem)
            elif one.sha256 in self._unusable:
                skipped.append(dataclasses.replace(self._unusable[one.sha256], name=printable(one.photo.id)))
            else:
                embedded.append(Embedded(one.photo, one.sha256, self._vector(one.sha256)))
        return EmbeddedBatch(embedded, skipped, fresh)

    def _vector(self, sha256: str) -> Embeddings:
        vector = self._vectors.get(sha256)
        vector = vector if vector is not None else self._known(sha256)
        assert vector is not None  # noqa: S101  # known() said so a moment ago, and only ever learns
        return vector
