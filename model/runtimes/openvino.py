"""OpenVINO on the CPU: the default where there is no CUDA."""

import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov

from model.card import Card, graph_names
from model.cores import available_cores
from model.errors import ModelInvalid, PrecisionMissing
from model.parallel import prefetch
from model.runtimes.base import Pending
from model.types import Embeddings, Pixels

PHOTOS_PER_STREAM = 4
"""In one batch, so that a search never waits long for an evaluation beside it."""


class OpenVINORuntime:
    """A graph that takes one photo at a time, compiled twice: for latency (all cores on one photo) and for throughput
    (one core for each of several photos).

    The batch shape is always 1. Kernels for other shapes sum in another order, so that the same photo would get other
    bits in the index than in a query. On CPUs they are no faster either: one photo per core gives more photos a second
    than one batch on all cores.
    """

    name = "openvino"

    def __init__(
        self, directory: Path, card: Card, precision: str | None = None, cache_dir: Path | None = None
    ) -> None:
        self.precision, path = choose_graph(directory, card, precision)
        core = ov.Core()
        self._streams = available_cores()
        try:
            graph = core.read_model(path)
            self._latency = core.compile_model(graph, "CPU", compile_options(1, cache_dir))
            self._throughput = core.compile_model(graph, "CPU", compile_options(self._streams, cache_dir))
        except RuntimeError as problem:
            raise ModelInvalid(f"{path} is not a graph that OpenVINO can read.") from problem
        self.dim = int(self._latency.output(0).shape[-1])
        self._expected = tuple(int(side) for side in self._latency.input(0).shape)
        if self._expected != (1, card.input.crop, card.input.crop, 3):
            raise ModelInvalid(f"{path} takes {self._expected}, but the card says crops of {card.input.crop} pixels.")
        self.batch = PHOTOS_PER_STREAM * self._streams
        self.in_flight = 2  # no core is idle while one batch is fetched and the next is submitted
        self._lock = threading.Lock()
        self._idle: dict[bool, list[_Request]] = {True: [], False: []}
        # Weak references: a caller that gives up drops its batch, and the requests go with it.
        self._pending: weakref.WeakSet[_Batch] = weakref.WeakSet()

    def embed(self, crops: Pixels) -> Embeddings:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        if len(crops) <= self.batch:
            return self.submit(crops, lone=True).wait()
        # In parts, so that a photo that somebody else submits meanwhile does not wait for all of them.
        parts = (crops[start : start + self.batch] for start in range(0, len(crops), self.batch))
        return np.concatenate([pending.wait() for pending in prefetch(map(self.submit, parts), self.in_flight)])

    def submit(self, crops: Pixels, *, lone: bool = False) -> Pending:
        """Starts on uint8 (B, S, S, 3), behind what was submitted before.

        A few lone photos are done sooner one after the other on all cores, at a higher price in CPU time. The thread
        that waits for them computes them.
        """
        if crops.shape[1:] != self._expected[1:]:
            raise ValueError(f"The crops are {crops.shape[1:]}, and the graph takes {self._expected[1:]}.")
        if not len(crops):
            return Pending(lambda: np.empty((0, self.dim), np.float32))
        with self._lock:
            alone = lone and 2 * len(crops) <= self._streams and not self._pending
            idle, graph = self._idle[alone], self._latency if alone else self._throughput
            requests = [idle.pop() if idle else _Request(graph) for _ in crops]
            batch = _Batch(requests, alone, self._release)
            self._pending.add(batch)
        batch.start(crops)
        return Pending(batch.wait, batch.done)

    def _release(self, batch: "_Batch") -> None:
        with self._lock:
            self._pending.discard(batch)
            self._idle[batch.alone] += batch.requests


class _Batch:
    """One inference request for each photo of a batch."""

    def __init__(self, requests: "list[_Request]", alone: bool, release: "Callable[[_Batch], None]") -> None:
        self.requests = requests
        self.alone = alone
        self._release = release

    def start(self, crops: Pixels) -> None:
        for request, crop in zip(self.requests, crops, strict=True):
            request.input[0] = crop
            if not self.alone:
                request.infer.start_async()

    def done(self) -> bool:
        return not self.alone and all(request.infer.wait_for(0) for request in self.requests)

    def wait(self) -> Embeddings:
        for request in self.requests:
            if self.alone:
                request.infer.infer(share_outputs=True)  # in this thread, which saves two thread switches
            else:
                request.infer.wait()
        rows = np.concatenate([request.output for request in self.requests])
        self._release(self)
        return rows


class _Request:
    """An inference request with its input uint8 (1, S, S, 3) and its output float32 (1, D), overwritten by each run."""

    def __init__(self, graph: ov.CompiledModel) -> None:
        self.infer = graph.create_infer_request()
        self.input: Pixels = self.infer.get_input_tensor(0).data
        self.output: Embeddings = self.infer.get_output_tensor(0).data


def compile_options(streams: int, cache_dir: Path | None = None) -> dict[str, str]:
    """How a graph is compiled for the CPU, to run so many photos at a time on all cores."""
    options = {
        # Without this hint a graph in fp32 runs in bf16 on CPUs that have it, and parity is lost silently.
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(available_cores()),
    }
    return options if cache_dir is None else {**options, "CACHE_DIR": str(cache_dir)}


def choose_graph(directory: Path, card: Card, precision: str | None) -> tuple[str, Path]:
    """The precision to run, by default the first that the card has, and its graph; raises PrecisionMissing."""
    # A graph that the card does not name was never measured: an interrupted export left it behind.
    available = [name for name in card.precisions if (directory / graph_names(name)[0]).is_file()]
    chosen = precision or next(iter(available), None)
    if chosen in available:
        return chosen, directory / graph_names(chosen)[0]
    found = f" in {precision}, only in {', '.join(available)}" if available else ""
    option = f" --precision {precision}" if precision else ""
    raise PrecisionMissing(
        f"The model in {directory} has no OpenVINO graph{found}; make one with: carsearch export {directory}{option}"
    )
