"""Photos to embeddings: decoding in a pool of threads, the network on batches, results in order."""

import importlib.resources
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from model.card import BF16, FP32, GOLDEN_NAME, INT8, NVJPEG, Card, card_sha256, load_card, verify_artifact
from model.dataset import read_file
from model.errors import (
    BackendUnavailable,
    EmbeddingInvalid,
    FileUnreadable,
    ImageRejected,
    ModelInvalid,
    ModelNotFound,
    PrecisionMissing,
)
from model.images.decode import Pixels, fit
from model.images.preparation import CPU, HostPreparation, Preparation, Rejected, load_preparation
from model.images.sources import PhotoSource, read_source
from model.retrieval import Embeddings
from model.runtimes import load_runtime
from model.runtimes.base import AsynchronousRuntime, Pending, Runtime, running_ahead

if TYPE_CHECKING:  # a slim install has no torch
    from torch import Tensor

Source = TypeVar("Source")
Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""Told (photos done, photos in all); may raise to stop the work."""

DEFAULT_MODEL = "efficientnet_lite0"
"""The model that ships and is best on photos of real cars: what is used when none is named."""

PRETRAINED = Path(str(importlib.resources.files("model"))) / "pretrained"

BATCH = 32
LENGTH_TOLERANCE = 1e-3
MIN_GOLDEN_COSINE = 0.9999
MIN_GOLDEN_COSINE_ROUNDED = 0.99
"""In int8 a value near the middle of two steps falls one way on one kind of CPU and the other way on another."""


def silent(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A batch that a runtime works on: `result` waits for float32 (B, D), unit rows, and raises what went wrong.

    `rejected` are the rows whose photo turned out to be damaged; their embeddings mean nothing.
    """

    result: Callable[[], Embeddings]
    rejected: Rejected


class Embedder:
    """A model artifact loaded into a runtime.

    >>> embedder = Embedder.load("path/to/model")                    # doctest: +SKIP
    >>> embedder.embed_files(["first.jpg", "second.jpg"]).shape      # doctest: +SKIP
    (2, 512)
    """

    def __init__(self, directory: Path, card: Card, runtime: Runtime, preparation: Preparation | None = None) -> None:
        self.directory = directory
        self.card = card
        self.runtime = runtime
        self.model_sha256 = card_sha256(directory)
        self.preparation = preparation or HostPreparation(card.input)
        self.embedding_id = card.embedding_id(runtime.precision, self.preparation.decoder)
        ahead = runtime if isinstance(runtime, AsynchronousRuntime) else None
        self.batch = ahead.batch if ahead else BATCH
        self.in_flight = ahead.in_flight if ahead else 1
        self.enough = ahead.enough if ahead else 1

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        runtime: str = "auto",
        precision: str | None = None,
        cache_dir: Path | None = None,
        decoder: str = CPU,
    ) -> Self:
        """Loads a model by the name of one that ships, or by its directory.

        By default OpenVINO runs it in int8 where it has such a graph, and torch in fp32. Every file of the artifact is
        checked against the card, and the golden photo must give the recorded embedding. `decoder` is "cpu" or "nvjpeg".
        Raises ModelNotFound, ModelInvalid or MissingDependency.
        """
        directory = find_model(model)
        card = verify_artifact(directory)
        loaded = load_runtime(runtime, directory, card, precision, cache_dir)
        embedder = cls(directory, card, loaded, load_preparation(decoder, card.input, loaded))
        embedder.check_golden()
        return embedder

    @classmethod
    def load_like(
        cls, model: str | Path, embedding_id: str, runtime: str = "auto", cache_dir: Path | None = None
    ) -> Self:
        """Loads a model with the precision and the decoder that gave embeddings of this id.

        When the runtime lacks the precision, or nothing of this model gives the id, as `load` does by default. Raises
        ModelMismatch too, when the decoder cannot run here.
        """
        space = load_card(find_model(model)).space_of(embedding_id)
        decoder = "nvjpeg" if space and space.decoder == NVJPEG else CPU
        try:
            return cls.load(model, runtime, space and space.precision, cache_dir, decoder)
        except PrecisionMissing:
            return cls.load(model, runtime, None, cache_dir, decoder)

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return self.runtime.dim

    def prepare(self, photo: PhotoSource) -> Pixels:
        """A photo -> the crop that this model takes: uint8 (S, S, 3).

        Pixels that are decoded already are resized on the CPU. Raises ImageRejected, and FileUnreadable for a path.
        """
        source = read_source(photo)
        return self.preparation.prepare(source) if isinstance(source, bytes) else fit(source, self.card.input)

    def embed_crops(self, crops: Pixels) -> Embeddings:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows.

        Raises EmbeddingInvalid for anything else, BackendUnavailable when the runtime fails.
        """
        return self._checked(lambda: self.runtime.embed(crops), len(crops))

    def submit_crops(self, crops: "Pixels | Tensor", *, lone: bool = False) -> Pending:
        """Starts on what `embed_crops` takes; waiting gives what that gives, and raises what that raises.

        `lone` photos may have all cores. Where nothing runs beside its caller, the one who waits computes.
        """
        runtime = self.runtime
        if not isinstance(runtime, AsynchronousRuntime):
            return Pending(lambda: self._checked(lambda: runtime.embed(np.asarray(crops)), len(crops)))
        if self.in_flight == 1:
            return Pending(lambda: self._checked(lambda: runtime.submit(crops).wait(), len(crops)))
        pending = self._run(lambda: runtime.submit(crops, lone=lone))
        return Pending(lambda: self._checked(pending.wait, len(crops)), pending.done)

    def submit(self, staged: Sequence[Any]) -> Submitted:
        """Starts on photos that `preparation` has staged, as `submit_crops` does."""
        crops, rejected = self.preparation.crops(staged)
        return Submitted(self.submit_crops(crops).wait, rejected)

    def _run(self, work: Callable[[], Result]) -> Result:
        """What the runtime does; raises BackendUnavailable for what torch and OpenVINO raise when a device fails."""
        try:
            return work()
        except (RuntimeError, MemoryError) as problem:
            raise BackendUnavailable(f"The runtime {self.runtime.name} failed ({type(problem).__name__}).") from problem

    def _checked(self, work: Callable[[], Embeddings], count: int) -> Embeddings:
        embeddings = self._run(work)
        squares = np.einsum("ij,ij->i", embeddings, embeddings)  # in a search every call into numpy counts
        if embeddings.shape != (count, self.dim) or not (abs(squares - 1) <= 2 * LENGTH_TOLERANCE).all():  # nor NaN
            raise EmbeddingInvalid("The network gave something that is not a vector of length 1.")
        return embeddings

    def embed_photo(self, photo: PhotoSource) -> Embeddings:
        """A photo -> float32 (D,), unit length; raises ImageRejected, and FileUnreadable for a path."""
        row: Embeddings = self.embed_crops(self.prepare(photo)[None])[0]
        return row

    def embed_files(
        self, paths: Iterable[str | os.PathLike[str]], progress: Callable[[int], None] | None = None
    ) -> Embeddings:
        """Paths -> float32 (n, D), unit rows in the order of the paths.

        `progress` is told how many photos are done. Raises FileUnreadable or ImageRejected for the first bad photo.
        """

        def read(path: str | os.PathLike[str]) -> tuple[Path, Any]:
            try:
                return Path(path), self.preparation.stage(read_file(Path(path)))
            except (FileUnreadable, ImageRejected) as problem:
                raise type(problem)(f"{Path(path)}: {problem}") from problem

        def start(batch: list[tuple[Path, Any]]) -> Submitted:
            submitted = self.submit([staged for _, staged in batch])
            for row, problem in sorted(submitted.rejected.items()):
                raise type(problem)(f"{batch[row][0]}: {problem}") from problem
            return submitted

        rows: list[Embeddings] = [np.empty((0, self.dim), np.float32)]
        done = 0
        with decode_pool() as pool:
            staged = batches(map_in_order(pool, read, paths, ahead=2 * self.batch), self.batch)
            for submitted in running_ahead(map(start, staged), self.in_flight):
                rows.append(submitted.result())
                done += len(rows[-1])
                if progress:
                    progress(done)
        return np.concatenate(rows)

    def check_golden(self) -> None:
        """Embeds the golden photo and compares with the card; raises ModelInvalid when this machine disagrees."""
        runtime, precision = self.runtime.name, self.runtime.precision
        rounded = precision in (INT8, BF16) or self.preparation.decoder is not None
        # No card records bf16, which needs no export: it is held to what fp32 gives.
        expected = self.card.golden.get(f"{runtime}/{FP32 if precision == BF16 else precision}")
        if expected is None:
            return
        found = self.embed_photo(read_file(self.directory / GOLDEN_NAME))
        cosine = float(np.dot(found, np.asarray(expected, np.float32)))
        if not cosine >= (MIN_GOLDEN_COSINE_ROUNDED if rounded else MIN_GOLDEN_COSINE):
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
