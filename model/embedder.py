"""A loaded model: photos to embeddings, decoded in a pool of threads and embedded in batches, in order."""

import importlib.resources
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from model.car_head import CarHead
from model.card import (
    BF16,
    CAR_HEAD_NAME,
    DECODER,
    FP32,
    GOLDEN_NAME,
    INT8,
    Card,
    card_sha256,
    load_card,
    verify_artifact,
)
from model.dataset import read_file
from model.errors import (
    BackendUnavailable,
    EmbeddingInvalid,
    ExplanationUnavailable,
    FileUnreadable,
    ImageRejected,
    ModelInvalid,
    ModelNotFound,
    PrecisionMissing,
)
from model.explain import Explanation, Shares
from model.images.box import Box
from model.images.sources import PhotoSource, decode_source
from model.images.transform import fit, shorter_side
from model.parallel import batched, decode_pool, map_in_order, prefetch
from model.runtimes import load_runtime
from model.runtimes.base import Pending, Runtime
from model.types import Embeddings, Pixels

if TYPE_CHECKING:
    from model.runtimes.feature_maps import FeatureGraph
    from model.runtimes.onnx import OnnxFeatureMaps

Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""Called with (photos done, photos in all); may raise to stop the work."""

DEFAULT_MODEL = "efficientnet_lite0"
"""The shipped model that is best on photos of real cars, used when none is named."""

PRETRAINED = Path(str(importlib.resources.files("model"))) / "pretrained"

LENGTH_TOLERANCE = 1e-3
MIN_GOLDEN_COSINE = 0.9999
MIN_GOLDEN_COSINE_ROUNDED = 0.99
"""For int8 and bf16: a value near the middle of two steps is rounded up on one kind of CPU and down on another."""


def silent(_done: int, _total: int) -> None:
    """A `Progress` that does nothing."""


class Embedder:
    """A model artifact loaded into a runtime. Safe to use from several threads."""

    def __init__(self, directory: Path, card: Card, runtime: Runtime) -> None:
        self.directory = directory
        self.card = card
        self.runtime = runtime
        self.dim = runtime.dim  # D, the length of an embedding
        self.model_sha256 = card_sha256(directory)
        self.embedding_id = card.embedding_id(runtime.precision)
        has_head = CAR_HEAD_NAME in card.files
        self.car_head = CarHead.read(directory / CAR_HEAD_NAME, self.dim) if has_head else None
        self.batch, self.in_flight = runtime.batch, runtime.in_flight
        self._loading = threading.Lock()
        self._feature_graph: FeatureGraph | OnnxFeatureMaps | None = None

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        runtime: str = "auto",
        precision: str | None = None,
        cache_dir: Path | None = None,
    ) -> Self:
        """Loads a model by the name of a shipped one, or by its directory.

        By default OpenVINO runs int8 where the model has such a graph, and other runtimes run fp32. Every file of the
        artifact is checked against the card, and the golden photo must give the recorded embedding. Raises
        ModelNotFound, ModelInvalid or MissingDependency.
        """
        directory = find_model(model)
        card = verify_artifact(directory)
        if card.input.decoder != DECODER:
            raise ModelInvalid(
                f"The model in {directory} was made with the decoder {card.input.decoder}, and this version has "
                f"{DECODER}; export it anew: carsearch export {directory}"
            )
        embedder = cls(directory, card, load_runtime(runtime, directory, card, precision, cache_dir))
        embedder.check_golden()
        return embedder

    @classmethod
    def load_like(
        cls, model: str | Path, embedding_id: str, runtime: str = "auto", cache_dir: Path | None = None
    ) -> Self:
        """Loads a model with the precision that gave embeddings of this id.

        Falls back to the default of `load` when the runtime lacks the precision or no precision gives the id.
        """
        precision = load_card(find_model(model)).precision_of(embedding_id)
        try:
            return cls.load(model, runtime, precision, cache_dir)
        except PrecisionMissing:
            return cls.load(model, runtime, None, cache_dir)

    def prepare(self, photo: PhotoSource, box: Box | None = None) -> Pixels:
        """A photo, or a box of it, -> the crop that this model takes: uint8 (S, S, 3).

        Raises ImageRejected, InvalidBox, and FileUnreadable for a path.
        """
        spec = self.card.input
        return fit(decode_source(photo, shorter_side(spec), box), spec)

    def embed_crops(self, crops: Pixels) -> Embeddings:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows.

        Raises EmbeddingInvalid for anything else, BackendUnavailable when the runtime fails.
        """
        return self._checked(lambda: self.runtime.embed(crops), len(crops))

    def submit_crops(self, crops: Pixels, *, lone: bool = False) -> Pending:
        """Starts on what `embed_crops` takes; waiting returns and raises what `embed_crops` does.

        `lone` photos may take all cores.
        """
        pending = self._run(lambda: self.runtime.submit(crops, lone=lone))
        return Pending(lambda: self._checked(pending.wait, len(crops)), pending.done)

    def _run(self, work: Callable[[], Result]) -> Result:
        """Calls the runtime; turns what runtimes raise when a device fails into BackendUnavailable."""
        try:
            return work()
        except (RuntimeError, MemoryError) as problem:
            raise BackendUnavailable(f"The runtime {self.runtime.name} failed ({type(problem).__name__}).") from problem

    def _checked(self, work: Callable[[], Embeddings], count: int) -> Embeddings:
        embeddings = self._run(work)
        squares = np.einsum("ij,ij->i", embeddings, embeddings)  # one numpy call: this runs in every search
        good = (abs(squares - 1) <= 2 * LENGTH_TOLERANCE).all()  # False for NaN
        if embeddings.shape != (count, self.dim) or not good:
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

        `progress` is called with the number of photos done. Raises FileUnreadable or ImageRejected for a bad photo.
        """

        def read(path: str | os.PathLike[str]) -> Pixels:
            try:
                return self.prepare(read_file(Path(path)))
            except (FileUnreadable, ImageRejected) as problem:
                raise type(problem)(f"{Path(path)}: {problem}") from problem

        def start(crops: list[Pixels]) -> Pending:
            return self.submit_crops(np.stack(crops))

        rows: list[Embeddings] = [np.empty((0, self.dim), np.float32)]
        done = 0
        with decode_pool() as pool:
            crops = map_in_order(pool, read, paths, buffer_size=2 * self.batch)
            for pending in prefetch(map(start, batched(crops, self.batch)), self.in_flight):
                rows.append(pending.wait())
                done += len(rows[-1])
                if progress:
                    progress(done)
        return np.concatenate(rows)

    def shares(self, crop: Pixels) -> Shares:
        """A crop uint8 (S, S, 3) -> what each place of it adds to its embedding, for `explain`: float64 (D, h, w).

        The first call loads a second graph of the same weights, for OpenVINO unless the runtime is onnx. Raises
        ExplanationUnavailable when the model has none, or OpenVINO is not installed, and BackendUnavailable when the
        graph fails.
        """
        graph = self._graph_of_maps()
        return self._run(lambda: graph.shares(crop))

    def explain(self, query: Shares, hit: Shares) -> Explanation:
        """Why two photos match: the cosine of their embeddings by the places of each (`model.explain`).

        Raises ExplanationUnavailable as `shares` does.
        """
        return self._graph_of_maps().explain(query, hit)

    def _graph_of_maps(self) -> "FeatureGraph | OnnxFeatureMaps":
        with self._loading:
            if self._feature_graph is None:
                self._feature_graph = self._load_maps()
            return self._feature_graph

    def _load_maps(self) -> "FeatureGraph | OnnxFeatureMaps":
        if self.runtime.name == "onnx":
            from model.runtimes.onnx import OnnxFeatureMaps

            return OnnxFeatureMaps(self.directory, self.card)
        try:
            from model.runtimes.feature_maps import FeatureGraph
        except ModuleNotFoundError as problem:
            raise ExplanationUnavailable("Explaining a match needs OpenVINO.") from problem
        return FeatureGraph(self.directory, self.card, self.runtime.precision)

    def check_golden(self) -> None:
        """Embeds the golden photo and compares with the card; raises ModelInvalid when this machine disagrees."""
        runtime, precision = self.runtime.name, self.runtime.precision
        # No card records bf16, which needs no export: it is compared with fp32.
        expected = self.card.golden.get(f"{runtime}/{FP32 if precision == BF16 else precision}")
        if expected is None:
            return
        found = self.embed_photo(read_file(self.directory / GOLDEN_NAME))
        cosine = float(np.dot(found, np.asarray(expected, np.float32)))
        if not cosine >= (MIN_GOLDEN_COSINE_ROUNDED if precision in (INT8, BF16) else MIN_GOLDEN_COSINE):
            raise ModelInvalid(
                f"The golden photo gives another embedding here than the card records: cosine {cosine:.6f} "
                f"with the runtime {runtime} in {precision}."
            )


def shipped_models() -> list[str]:
    """Names of the models that ship, in order."""
    return sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir()) if PRETRAINED.is_dir() else []


def find_model(model: str | Path | None) -> Path:
    """The directory of a model: a path, the name of a shipped model, or by default `DEFAULT_MODEL`.

    Raises ModelNotFound naming the shipped models.
    """
    names = shipped_models()
    name = DEFAULT_MODEL if model is None else str(model)
    if name in names:
        return PRETRAINED / name
    if not Path(name).is_dir():
        shipping = f"; those that ship are: {', '.join(names)}" if names else ""
        raise ModelNotFound(f'There is no model directory "{name}"{shipping}.')
    return Path(name)
