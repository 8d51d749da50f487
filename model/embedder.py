"""Photos to embeddings: decoding in a pool of threads, the network on batches, results in order."""

import importlib.resources
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from model.card import GOLDEN_NAME, INT8, Card, card_sha256, load_card, verify_artifact
from model.data import read_file
from model.errors import (
    EmbeddingInvalid,
    FileUnreadable,
    ImageRejected,
    ModelInvalid,
    ModelNotFound,
    PrecisionMissing,
)
from model.metrics import Embeddings
from model.preprocess import Pixels, prepare
from model.runtimes import load_runtime
from model.runtimes.base import Runtime

Source = TypeVar("Source")
Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""Told (photos done, photos in all); may raise to stop the work."""

DEFAULT_MODEL = "efficientnet_lite0"
"""The model that ships and is best on photos of real cars: what is used when none is named."""

PRETRAINED = Path(str(importlib.resources.files("model"))) / "pretrained"

BATCH = 32
MIN_GOLDEN_COSINE = 0.9999
MIN_GOLDEN_COSINE_QUANTISED = 0.99
"""In int8 a value near the middle of two steps falls one way on one kind of CPU and the other way on another."""


def silent(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


class Embedder:
    """A model artifact loaded into a runtime.

    >>> embedder = Embedder.load("path/to/model")                    # doctest: +SKIP
    >>> embedder.embed_files(["first.jpg", "second.jpg"]).shape      # doctest: +SKIP
    (2, 512)
    """

    def __init__(self, directory: Path, card: Card, runtime: Runtime) -> None:
        self.directory = directory
        self.card = card
        self.runtime = runtime
        self.model_sha256 = card_sha256(directory)
        self.embedding_id = card.embedding_id(runtime.precision)

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        runtime: str = "auto",
        precision: str | None = None,
        cache_dir: Path | None = None,
    ) -> Self:
        """Loads a model by the name of one that ships, or by its directory.

        By default OpenVINO runs it in int8 where it has such a graph, and torch in fp32. Every file of the artifact is
        checked against the card, and the golden photo must give the recorded embedding.
        Raises ModelNotFound, ModelInvalid or MissingDependency.
        """
        directory = find_model(model)
        card = verify_artifact(directory)
        embedder = cls(directory, card, load_runtime(runtime, directory, card, precision, cache_dir))
        embedder.check_golden()
        return embedder

    @classmethod
    def load_like(
        cls, model: str | Path, embedding_id: str, runtime: str = "auto", cache_dir: Path | None = None
    ) -> Self:
        """Loads a model in the precision that gave embeddings of this id, or as `load` when the runtime lacks it."""
        precision = load_card(find_model(model)).precision_of(embedding_id)
        try:
            return cls.load(model, runtime, precision, cache_dir)
        except PrecisionMissing:
            return cls.load(model, runtime, None, cache_dir)

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self.runtime.dim

    def prepare(self, data: bytes) -> Pixels:
        """Photo bytes -> the crop this model takes: uint8 (S, S, 3); raises ImageRejected."""
        return prepare(data, self.card.input)

    def embed_crops(self, crops: Pixels) -> Embeddings:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows; raises EmbeddingInvalid for anything else."""
        embeddings = self.runtime.embed(crops)
        lengths = np.linalg.norm(embeddings, axis=1)
        if embeddings.shape != (len(crops), self.dim) or not np.allclose(lengths, 1, atol=1e-3):  # NaN is not close
            raise EmbeddingInvalid("The network gave something that is not a vector of length 1.")
        return embeddings

    def embed_photo(self, data: bytes) -> Embeddings:
        """Photo bytes -> float32 (D,), unit length; raises ImageRejected."""
        row: Embeddings = self.embed_crops(self.prepare(data)[None])[0]
        return row

    def embed_files(
        self, paths: Iterable[str | os.PathLike[str]], progress: Callable[[int], None] | None = None
    ) -> Embeddings:
        """Paths -> float32 (n, D), unit rows in the order of the paths.

        `progress` is told how many photos are done. Raises FileUnreadable or ImageRejected for the first bad photo.
        """

        def read(path: str | os.PathLike[str]) -> Pixels:
            try:
                return self.prepare(read_file(Path(path)))
            except (FileUnreadable, ImageRejected) as problem:
                raise type(problem)(f"{Path(path)}: {problem}") from problem

        rows: list[Embeddings] = [np.empty((0, self.dim), np.float32)]
        done = 0
        with decode_pool() as pool:
            for batch in batches(map_in_order(pool, read, paths)):
                rows.append(self.embed_crops(np.stack(batch)))
                done += len(batch)
                if progress:
                    progress(done)
        return np.concatenate(rows)

    def check_golden(self) -> None:
        """Embeds the golden photo and compares with the card; raises ModelInvalid when this machine disagrees."""
        runtime, precision = self.runtime.name, self.runtime.precision
        expected = self.card.golden.get(f"{runtime}/{precision}")
        if expected is None:
            return
        found = self.embed_photo(read_file(self.directory / GOLDEN_NAME))
        cosine = float(np.dot(found, np.asarray(expected, np.float32)))
        if not cosine >= (MIN_GOLDEN_COSINE_QUANTISED if precision == INT8 else MIN_GOLDEN_COSINE):
            raise ModelInvalid(
                f"The golden photo gives another embedding here than the card records: cosine {cosine:.6f} "
                f"with the runtime {runtime} in {precision}."
            )


def find_model(model: str | Path | None) -> Path:
    """The directory of a model: a path, or the name of one that ships, by default the best on photos of real cars.

    Raises ModelNotFound naming those that ship.
    """
    names = sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir()) if PRETRAINED.is_dir() else []
    if model is None and DEFAULT_MODEL in names:
        return PRETRAINED / DEFAULT_MODEL
    if model is None:
        raise ModelNotFound("No model was named; pass --model with the directory that `carsearch train` wrote.")
    if str(model) in names:
        return PRETRAINED / str(model)
    if not Path(model).is_dir():
        shipping = f"; those that ship are: {', '.join(names)}" if names else ""
        raise ModelNotFound(f'There is no model directory "{model}"{shipping}.')
    return Path(model)


def decode_pool() -> ThreadPoolExecutor:
    """Threads for reading and decoding; Pillow gives the interpreter lock up while it works."""
    return ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0)), thread_name_prefix="decode")


def map_in_order(
    pool: ThreadPoolExecutor, function: Callable[[Source], Result], sources: Iterable[Source], ahead: int = 2 * BATCH
) -> Iterator[Result]:
    """`map` in a pool that keeps at most `ahead` results in memory, in the order of the sources."""
    waiting: deque[Future[Result]] = deque()
    iterator = iter(sources)
    try:
        for source in islice(iterator, ahead):
            waiting.append(pool.submit(function, source))
        while waiting:
            result = waiting.popleft().result()
            for source in islice(iterator, 1):
                waiting.append(pool.submit(function, source))
            yield result
    finally:
        for future in waiting:
            future.cancel()


def batches(results: Iterable[Result], size: int = BATCH) -> Iterator[list[Result]]:
    """Cuts a stream into lists of `size`, the last one shorter."""
    iterator = iter(results)
    while batch := list(islice(iterator, size)):
        yield batch
