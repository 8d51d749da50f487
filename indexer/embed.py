"""Photos to embeddings with their content's sha256: what building an index and evaluating have in common."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from indexer.gallery import sha256_bytes
from model.data import Photo, Skipped, printable
from model.embedder import Embedder, batches, decode_pool, map_in_order
from model.errors import FileUnreadable, ImageRejected
from model.metrics import Embeddings
from model.preprocess import Pixels


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


@dataclass(frozen=True, slots=True)
class _Read:
    photo: Photo
    sha256: str = ""
    crop: Pixels | None = None
    problem: Skipped | None = None


def nothing_known(_sha256: str) -> None:
    """Every photo has to be embedded."""


def embed_photos(
    photos: Iterable[Photo], embedder: Embedder, known: Callable[[str], Embeddings | None] = nothing_known
) -> Iterator[EmbeddedBatch]:
    """Reads, decodes and embeds photos in batches.

    Content that `known` has an embedding for is neither decoded nor embedded; equal content is embedded once a batch.
    Photos that cannot be read or decoded come back as skipped.
    """

    def read(photo: Photo) -> _Read:
        try:
            data = photo.read()
            sha256 = sha256_bytes(data)
            crop = None if known(sha256) is not None else embedder.prepare(data)
        except (FileUnreadable, ImageRejected) as problem:
            return _Read(photo, problem=Skipped.because(printable(photo.id), problem))
        return _Read(photo, sha256, crop)

    with decode_pool() as pool:
        for batch in batches(map_in_order(pool, read, photos)):
            crops = {one.sha256: one.crop for one in batch if one.crop is not None}
            fresh: dict[str, Embeddings] = {}
            if crops:
                fresh = dict(zip(crops, embedder.embed_crops(np.stack(list(crops.values()))), strict=True))
            embedded = []
            for one in batch:
                if one.problem is None:
                    vector = fresh.get(one.sha256)
                    vector = vector if vector is not None else known(one.sha256)
                    assert vector is not None  # noqa: S101  # known() said so a moment ago, and only ever learns
                    embedded.append(Embedded(one.photo, one.sha256, vector))
            yield EmbeddedBatch(embedded, [one.problem for one in batch if one.problem is not None], fresh)
