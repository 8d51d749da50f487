"""ONNX Runtime on the CPU, in fp32: what Linux on ARM has instead of OpenVINO."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from model.card import FP32, ONNX_NAME, WHITENING_NAME, Card
from model.cores import available_cores
from model.errors import ExplanationUnavailable, ModelInvalid, PrecisionMissing
from model.explain import Explanation, Linear, Shares, explain, shares_of
from model.runtimes.base import Pending
from model.types import Embeddings, Pixels

CROP, EMBEDDING, MAPS = "crop", "embedding", "maps"
"""Names in a graph: its input uint8 (1, S, S, 3), its outputs float32 (1, D) and (1, D, h, w)."""
POWER = "power"
"""Key in a graph's metadata: the power of the generalised mean over the feature maps."""

PHOTOS_PER_CORE = 4
"""In one batch, so that a search never waits long for an evaluation beside it."""


class OnnxRuntime:
    """A graph that takes one photo at a time, on all cores.

    The graph has no weights of its own: it names places in `weights.safetensors` and `whitening.safetensors`.
    """

    name = "onnx"
    precision = FP32
    in_flight = 1

    def __init__(
        self, directory: Path, card: Card, precision: str | None = None, cache_dir: Path | None = None
    ) -> None:
        del cache_dir  # a graph is read in a fraction of a second
        if precision not in (None, FP32):
            raise PrecisionMissing(f"The runtime onnx runs a model in fp32, not in {precision}; use openvino or torch.")
        if ONNX_NAME not in card.files:
            raise PrecisionMissing(
                f"The model in {directory} has no ONNX graph; make one with: "
                f"carsearch export {directory} --runtime onnx"
            )
        self._session = open_graph(directory)
        shape = self._session.get_inputs()[0].shape
        if shape != [1, card.input.crop, card.input.crop, 3]:
            raise ModelInvalid(
                f"{directory / ONNX_NAME} takes {shape}, but the card says crops of {card.input.crop} pixels."
            )
        self.dim = self._session.get_outputs()[0].shape[1]
        self.batch = PHOTOS_PER_CORE * available_cores()

    def embed(self, crops: Pixels) -> Embeddings:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        rows = (run(self._session, EMBEDDING, crop) for crop in crops)
        return np.concatenate([np.empty((0, self.dim), np.float32), *rows])

    def submit(self, crops: Pixels, *, lone: bool = False) -> Pending:
        """Computes when somebody waits."""
        del lone
        return Pending(lambda: self.embed(crops))


class OnnxFeatureMaps:
    """The feature maps of a model's ONNX graph, for `model.explain`; safe to use from several threads.

    Raises ExplanationUnavailable where the graph gives none.
    """

    def __init__(self, directory: Path, card: Card) -> None:
        self._session = open_graph(directory)
        power = self._session.get_modelmeta().custom_metadata_map.get(POWER)
        if power is None:
            raise ExplanationUnavailable("This model cannot explain its matches: its graph gives no feature maps.")
        self._power = float(power)
        self._whitening: Linear | None = None
        if WHITENING_NAME in card.files:
            content = (directory / WHITENING_NAME).read_bytes()  # one matrix in fp16, behind a header
            values = np.frombuffer(content, "<f2", offset=8 + int.from_bytes(content[:8], "little"))
            self._whitening = values.astype(np.float64).reshape(card.embedding_dim, -1)

    def shares(self, crop: Pixels) -> Shares:
        """A crop uint8 (S, S, 3) -> what each place adds to its pooled features: float64 (D, h, w)."""
        return shares_of(run(self._session, MAPS, crop)[0], self._power)

    def explain(self, query: Shares, hit: Shares) -> Explanation:
        """The cosine of two photos by places; the places of a photo are those of its crop."""
        return explain(query, hit, self._whitening)


def open_graph(directory: Path) -> ort.InferenceSession:
    """The ONNX graph of a model, to run on all cores; raises ModelInvalid when it cannot be read."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_cores()
    # Threads that look for work in a loop take twice the CPU time, and take it from the searches beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what goes wrong is raised too
    try:
        return ort.InferenceSession(directory / ONNX_NAME, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # the package's errors have no parent of their own
        raise ModelInvalid(f"{directory / ONNX_NAME} is not a graph that ONNX Runtime can read.") from problem


def run(session: ort.InferenceSession, output: str, crop: Pixels) -> Any:
    """An output of a graph for a crop uint8 (S, S, 3), float32; raises RuntimeError when it fails."""
    try:
        return session.run([output], {CROP: crop[None]})[0]
    except Exception as problem:
        raise RuntimeError(str(problem)) from problem
