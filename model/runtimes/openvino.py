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


class OpenVINORuntime:
    """A compiled graph that takes one photo at a time.

    The batch shape is 1 wherever a photo is embedded: kernels for other shapes sum in another order, and the same photo
    would then get other bits in the index than in a query. On CPUs an fp32 graph is as fast so; inside one photo it
    runs on all cores, so that a second request in flight gains nothing, and an interrupted one has left nothing behind.
    """

    name = "openvino"

    def __init__(
        self, directory: Path, card: Card, precision: str | None = None, cache_dir: Path | None = None
    ) -> None:
        self.precision, path = _choose(directory, card, precision)
        core = ov.Core()
        options: dict[str, str] = {
            # Without the hint what is not int8 runs in bf16 on CPUs that have it, and parity is lost silently.
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        }
        if cache_dir is not None:
            options["CACHE_DIR"] = str(cache_dir)
        try:
            compiled = core.compile_model(core.read_model(path), "CPU", options)
        except RuntimeError as problem:
            raise ModelInvalid(f"{path} is not a graph that OpenVINO can read.") from problem
        self.dim = int(compiled.output(0).shape[-1])
        self._expected = tuple(int(side) for side in compiled.input(0).shape)
        if self._expected != (1, card.input.crop, card.input.crop, 3):
            raise ModelInvalid(f"{path} takes {self._expected}, but the card says crops of {card.input.crop} pixels.")
        self._request = compiled.create_infer_request()
        self._turnstile = Turnstile()

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        embeddings = np.empty((len(crops), self.dim), np.float32)
        for row in range(len(crops)):
            # One turn a photo: a search does not wait until an evaluation beside it has embedded its batch.
            with self._turnstile.turn():
                self._request.infer({0: ov.Tensor(crops[row : row + 1])}, share_inputs=True)
                embeddings[row] = self._request.get_output_tensor(0).data[0]
        return embeddings


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
