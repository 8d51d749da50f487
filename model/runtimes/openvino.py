"""OpenVINO on the CPU: the default where there is no CUDA."""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from model.card import Card, graph_names
from model.errors import ModelInvalid, PrecisionMissing
from model.preprocess import Pixels
from model.runtimes.base import running_ahead

PHOTOS_A_STREAM = 4
"""In one batch: a search waits for as many as an evaluation beside it has submitted."""


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
            self._alone = core.compile_model(graph, "CPU", _options(1, cache_dir))
            self._together = core.compile_model(graph, "CPU", _options(self._streams, cache_dir))
        except RuntimeError as problem:
            raise ModelInvalid(f"{path} is not a graph that OpenVINO can read.") from problem
        self.dim = int(self._alone.output(0).shape[-1])
        self._expected = tuple(int(side) for side in self._alone.input(0).shape)
        if self._expected != (1, card.input.crop, card.input.crop, 3):
            raise ModelInvalid(f"{path} takes {self._expected}, but the card says crops of {card.input.crop} pixels.")
        self.batch = PHOTOS_A_STREAM * self._streams
        self.in_flight = 2  # no core waits while one batch is fetched and the next is handed over
        self._lock = threading.Lock()
        self._free: list[_Lane] = []
        # Of those in use only those that somebody still waits for: who gives up drops the lane, and it ends by itself.
        self._taken: weakref.WeakSet[_Lane] = weakref.WeakSet()

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        # In batches: a photo that somebody else submits meanwhile does not wait for all of them.
        parts = (crops[start : start + self.batch] for start in range(0, len(crops), self.batch))
        rows = [wait() for wait in running_ahead(map(self.submit, parts), self.in_flight)]
        return np.concatenate([np.empty((0, self.dim), np.float32), *rows])

    def submit(self, crops: Pixels) -> Callable[[], npt.NDArray[np.float32]]:
        """Starts on uint8 (B, S, S, 3), behind what was submitted before; what it returns waits for float32 (B, D)."""
        if crops.shape[1:] != self._expected[1:]:
            raise ValueError(f"The crops are {crops.shape[1:]}, and the graph takes {self._expected[1:]}.")
        starts = range(0, len(crops), self.batch)
        lanes = [self._start(crops[start : start + self.batch]) for start in starts]

        def wait() -> npt.NDArray[np.float32]:
            rows = [lane.wait() for lane in lanes]
            with self._lock:
                self._free += lanes
                self._taken.difference_update(lanes)
            lanes.clear()
            return np.concatenate([np.empty((0, self.dim), np.float32), *rows])

        return wait

    def _start(self, crops: Pixels) -> "_Lane":
        with self._lock:
            # A few photos and nobody else's: they are sooner done one after the other on all cores.
            alone = 2 * len(crops) <= self._streams and not self._taken
            lane = self._free.pop() if self._free else _Lane(self._alone, self._together, self.batch)
            self._taken.add(lane)
        lane.start(crops, alone)
        return lane


class _Lane:
    """Room for one batch: requests of both compilations, whose inputs and outputs are theirs for good."""

    def __init__(self, alone: ov.CompiledModel, together: ov.CompiledModel, batch: int) -> None:
        self._alone = [_Place(alone) for _ in range(batch // (2 * PHOTOS_A_STREAM))]
        self._together = [_Place(together) for _ in range(batch)]
        self._started: Sequence[_Place] = ()

    def start(self, crops: Pixels, alone: bool) -> None:
        self._started = (self._alone if alone else self._together)[: len(crops)]
        for place, crop in zip(self._started, crops, strict=True):
            place.start(crop)

    def wait(self) -> npt.NDArray[np.float32]:
        return np.concatenate([place.wait() for place in self._started])


class _Place:
    """Room for one photo."""

    def __init__(self, graph: ov.CompiledModel) -> None:
        self._request = graph.create_infer_request()
        self._input: Pixels = self._request.get_input_tensor(0).data
        self._output: npt.NDArray[np.float32] = self._request.get_output_tensor(0).data

    def start(self, crop: Pixels) -> None:
        self._input[0] = crop
        self._request.start_async()

    def wait(self) -> npt.NDArray[np.float32]:
        self._request.wait()
        return self._output


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
