"""OpenVINO on the CPU: the default where there is no CUDA."""

import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from model.card import Card, graph_names
from model.errors import ModelInvalid, PrecisionMissing
from model.runtimes.base import Pending, running_ahead
from model.types import Pixels

PHOTOS_A_STREAM = 4
"""In one batch: a search waits for few of an evaluation beside it."""


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
        self.enough = 2 * self._streams
        self._lock = threading.Lock()
        self._free: dict[bool, list[_Place]] = {True: [], False: []}
        # Only those that somebody will still wait for: who gives up drops the batch, and with it its places.
        self._pending: weakref.WeakSet[_Batch] = weakref.WeakSet()

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        if len(crops) <= self.batch:
            return self.submit(crops, lone=True).wait()
        # Not all at once: a photo that somebody else submits meanwhile would wait for all of them.
        parts = (crops[start : start + self.batch] for start in range(0, len(crops), self.batch))
        return np.concatenate([pending.wait() for pending in running_ahead(map(self.submit, parts), self.in_flight)])

    def submit(self, crops: Pixels, *, lone: bool = False) -> Pending:
        """Starts on uint8 (B, S, S, 3), behind what was submitted before.

        A few lone photos are sooner done one after the other on all cores, though at a higher price; they are embedded
        by the thread that waits for them.
        """
        if crops.shape[1:] != self._expected[1:]:
            raise ValueError(f"The crops are {crops.shape[1:]}, and the graph takes {self._expected[1:]}.")
        if not len(crops):
            return Pending(lambda: np.empty((0, self.dim), np.float32))
        with self._lock:
            alone = lone and 2 * len(crops) <= self._streams and not self._pending
            free, graph = self._free[alone], self._alone if alone else self._together
            places = [free.pop() if free else _Place(graph) for _ in crops]
            batch = _Batch(places, alone, self._give_back)
            self._pending.add(batch)
        batch.start(crops)
        return Pending(batch.wait, batch.done)

    def _give_back(self, batch: "_Batch") -> None:
        with self._lock:
            self._pending.discard(batch)
            self._free[batch.alone] += batch.places


class _Batch:
    """Photos in their places."""

    def __init__(self, places: "list[_Place]", alone: bool, give_back: "Callable[[_Batch], None]") -> None:
        self.places = places
        self.alone = alone
        self._give_back = give_back

    def start(self, crops: Pixels) -> None:
        for place, crop in zip(self.places, crops, strict=True):
            place.put(crop)
            if not self.alone:
                place.start()

    def done(self) -> bool:
        return not self.alone and all(place.done() for place in self.places)

    def wait(self) -> npt.NDArray[np.float32]:
        rows = np.concatenate([place.compute() if self.alone else place.wait() for place in self.places])
        self._give_back(self)
        return rows


class _Place:
    """Room for one photo, whose embedding is float32 (1, D) until the next is put there."""

    def __init__(self, graph: ov.CompiledModel) -> None:
        self._request = graph.create_infer_request()
        self._input: Pixels = self._request.get_input_tensor(0).data
        self._output: npt.NDArray[np.float32] = self._request.get_output_tensor(0).data

    def put(self, crop: Pixels) -> None:
        self._input[0] = crop

    def start(self) -> None:
        self._request.start_async()

    def done(self) -> bool:
        return bool(self._request.wait_for(0))

    def wait(self) -> npt.NDArray[np.float32]:
        self._request.wait()
        return self._output

    def compute(self) -> npt.NDArray[np.float32]:
        """In the calling thread, which takes part: two changes of threads less."""
        self._request.infer(share_outputs=True)
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
