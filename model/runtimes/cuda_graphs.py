"""A network in a few batch shapes, on CUDA each recorded once as a graph: launching a layer then costs the CPU nothing.

Copies go through pinned memory on a stream of their own, so that one batch travels while another is computed.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.network.embedding_net import EmbeddingNetwork

WARM_UPS = 3


@dataclass(frozen=True, slots=True)
class _Shape:
    """Static buffers, uint8 (size, S, S, 3) and float32 (size, D), and what computes the second from the first."""

    crops: Tensor
    rows: Tensor
    compute: Callable[[], object]


class FixedShapes:
    """Embeds batches padded to the next of some sizes. Safe to call from several threads.

    A size is prepared when it is first needed. On a CPU the same is done without graphs, streams and pinned memory.
    """

    def __init__(self, network: EmbeddingNetwork, device: torch.device, sizes: Sequence[int]) -> None:
        self._network = network
        self._device = device
        self._sizes = sorted(sizes)
        self._shapes: dict[int, _Shape] = {}
        self._lock = threading.Lock()  # the static buffers belong to one batch at a time
        self._cuda = device.type == "cuda"
        if self._cuda:
            self._copying, self._computing = _stream(device), _stream(device)

    def start(self, crops: Tensor) -> Callable[[], npt.NDArray[np.float32]]:
        """Starts on uint8 (n, S, S, 3), n up to the largest size; what it returns waits for float32 (n, D)."""
        return self._start_on_cuda(crops) if self._cuda else self._start_on_cpu(crops)

    def _start_on_cpu(self, crops: Tensor) -> Callable[[], npt.NDArray[np.float32]]:
        with self._lock, torch.inference_mode():
            shape = self._shape_for(len(crops))
            shape.crops[: len(crops)].copy_(crops)
            shape.compute()
            rows = shape.rows[: len(crops)].clone().numpy()
        return lambda: rows

    def _start_on_cuda(self, crops: Tensor) -> Callable[[], npt.NDArray[np.float32]]:
        host = torch.empty((len(crops), self._network.dim), pin_memory=True)
        with torch.cuda.device(self._device), torch.inference_mode():
            staged, ready = self._staged(crops)
            with self._lock:
                shape = self._shape_for(len(crops))
                with torch.cuda.stream(self._computing):
                    self._computing.wait_event(ready)
                    # Rows behind the last photo keep what an earlier batch left: computed, and never looked at.
                    shape.crops[: len(crops)].copy_(staged, non_blocking=True)
                    staged.record_stream(self._computing)  # its memory must not be given away before that
                    shape.compute()
                    host.copy_(shape.rows[: len(crops)], non_blocking=True)
                    # A blocking event lets the waiting thread sleep: its core is wanted for decoding.
                    done = _event(blocking=True)
                    done.record(self._computing)

        def result() -> npt.NDArray[np.float32]:
            done.synchronize()
            return cast(npt.NDArray[np.float32], host.numpy().copy())  # gives the pinned memory back

        return result

    def _staged(self, crops: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """The crops in the device's memory, and the event after which they are there."""
        ready = _event(blocking=False)
        if crops.device.type == "cuda":
            ready.record(torch.cuda.current_stream(self._device))  # the caller's stream made them
            return crops, ready
        pinned = crops.pin_memory()
        with torch.cuda.stream(self._copying):
            staged = pinned.to(self._device, non_blocking=True)
            ready.record(self._copying)
        return staged, ready

    def _shape_for(self, count: int) -> _Shape:
        size = next(size for size in self._sizes if size >= count)
        if size not in self._shapes:
            self._shapes[size] = self._record(size) if self._cuda else self._eager(size)
        return self._shapes[size]

    def _eager(self, size: int) -> _Shape:
        crops, rows = self._blank(size), torch.empty(size, self._network.dim)
        return _Shape(crops, rows, lambda: rows.copy_(self._network(crops)))

    def _record(self, size: int) -> _Shape:
        with torch.cuda.stream(self._computing):
            crops = self._blank(size)
            for _ in range(WARM_UPS):  # libraries choose kernels and take memory now, which a recording forbids
                self._network(crops)
        self._computing.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Only what this thread does must be fit for recording; others may be copying or decoding meanwhile.
        with torch.cuda.graph(graph, stream=self._computing, capture_error_mode="thread_local"):
            rows = self._network(crops)
        return _Shape(crops, rows, graph.replay)

    def _blank(self, size: int) -> Tensor:
        side = self._network.spec.crop
        return torch.zeros((size, side, side, 3), dtype=torch.uint8, device=self._device)


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it without types


def _event(blocking: bool) -> torch.cuda.Event:
    return torch.cuda.Event(blocking=blocking)  # type: ignore[no-untyped-call]  # torch leaves it without types
