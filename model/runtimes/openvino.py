"""OpenVINO on the CPU: the default where there is no CUDA."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from model.card import Card, graph_names
from model.errors import ModelInvalid, PrecisionMissing
from model.preprocess import Pixels
from model.runtimes.turnstile import Turnstile

PHOTOS_A_STREAM = 4
"""In one turn: a search waits so long for an evaluation beside it."""


class OpenVINORuntime:
    """A graph that takes one photo at a time, compiled twice: all cores on one photo, and one core for each of several.

    The batch shape is 1 wherever a photo is embedded: kernels for other shapes sum in another order, and the same photo
    would then get other bits in the index than in a query. On CPUs they are no faster either: several photos at once on
    a core each give more than one batch on all cores.
    """

    name = "openvino"

    def __init__(
        self, directory: Path, card: Card, precision: str | None = None, cache_dir: Path | None = None
    ) -> None:
        self.precision, path = _choose(directory, card, precision)
        core = ov.Core()
        self._streams = len(os.sched_getaffinity(0))
        try:
            graph = core.read_model(path)
            alone = core.compile_model(graph, "CPU", _options(1, cache_dir))
            together = core.compile_model(graph, "CPU", _options(self._streams, cache_dir))
        except RuntimeError as problem:
            raise ModelInvalid(f"{path} is not a graph that OpenVINO can read.") from problem
        self.dim = int(alone.output(0).shape[-1])
        self._expected = tuple(int(side) for side in alone.input(0).shape)
        if self._expected != (1, card.input.crop, card.input.crop, 3):
            raise ModelInvalid(f"{path} takes {self._expected}, but the card says crops of {card.input.crop} pixels.")
        self._alone = alone.create_infer_request()
        # Twice as many as run at a time: no core waits while the next photo is handed over.
        self._together = [together.create_infer_request() for _ in range(2 * self._streams)]
        self._turnstile = Turnstile()

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        embeddings = np.empty((len(crops), self.dim), np.float32)
        few = PHOTOS_A_STREAM * self._streams
        for start in range(0, len(crops), few):
            part = slice(start, start + few)
            # One turn a handful: a search does not wait until an evaluation beside it has embedded its batch.
            with self._turnstile.turn():
                self._embed_few(crops[part], embeddings[part])
        return embeddings

    def _embed_few(self, crops: Pixels, embeddings: npt.NDArray[np.float32]) -> None:
        """A few on many cores are sooner done one after the other on all of them."""
        inputs = [{0: ov.Tensor(crops[row : row + 1])} for row in range(len(crops))]
        if 2 * len(crops) <= self._streams or self._streams == 1:
            for row, photo in enumerate(inputs):
                self._alone.infer(photo, share_inputs=True)
                embeddings[row] = self._alone.get_output_tensor(0).data[0]
            return
        lanes = len(self._together)
        started = 0
        try:
            for row in range(len(crops) + lanes):
                request = self._together[row % lanes]
                if 0 <= row - lanes < len(crops):
                    request.wait()
                    embeddings[row - lanes] = request.get_output_tensor(0).data[0]
                if row < len(crops):
                    request.start_async(inputs[row], share_inputs=True)
                    started += 1
        finally:  # also when this thread was interrupted: the next turn finds nothing running
            for request in self._together[:started]:
                request.wait()


def _options(streams: int, cache_dir: Path | None) -> dict[str, str]:
    options = {
        # Without the hint what is not int8 runs in bf16 on CPUs that have it, and parity is lost silently.
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(len(os.sched_getaffinity(0))),
    }
    return options if cache_dir is None else {**options, "CACHE_DIR": str(cache_dir)}


def _choose(directory: Path, card: Card, precision: str | None) -> tuple[str, Path]:
    """The precision to run, and its graph."""
    # A graph that the card does not name was never measured: an export that was killed left it behind.
    there = [name for name in card.precisions if (directory / graph_names(name)[0]).is_file()]
    chosen = precision or next(iter(there), None)
    if chosen in there:
        return chosen, directory / graph_names(chosen)[0]
    lacking = f"{directory} has no OpenVINO graph" + (f" in {precision}, only in {', '.join(there)}" if there else "")
    option = f" --precision {precision}" if precision else ""
    raise PrecisionMissing(f"The model in {lacking}; make one with: carsearch export {directory}{option}")
