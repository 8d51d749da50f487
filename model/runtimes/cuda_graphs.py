"""CUDA graphs: a network captured once for each of a few batch shapes, so that launching a layer costs no CPU time.

Copies go through pinned memory on a separate stream, so that one batch is copied while another is computed.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from model.network.embedding_net import EmbeddingNetwork
from model.types import Embeddings

WARM_UPS = 3


@dataclass(frozen=True, slots=True)
class _Graph:
    """Static buffers, uint8 (size, S, S, 3) and float32 (size, D), and what computes the second from the first."""

    crops: Tensor
    rows: Tensor
    replay: Callable[[], object]


class CudaGraphs:
    """Embeds batches, padded to the next larger of some sizes. Safe to call from several threads.

    The graph of a size is captured when it is first needed.
    """

    def __init__(self, network: EmbeddingNetwork, device: torch.device, sizes: Sequence[int]) -> None:
        self._network = network
        self._device = device
        self._sizes = sorted(sizes)
        self._graphs: dict[int, _Graph] = {}
        self._lock = threading.Lock()  # one batch at a time uses the static buffers
        self._copying, self._computing = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def start(self, crops: Tensor) -> Callable[[], Embeddings]:
        """Starts on uint8 (n, S, S, 3), n up to the largest size; what it returns waits for float32 (n, D)."""
        host = torch.empty((len(crops), self._network.dim), pin_memory=True)
        with torch.cuda.device(self._device), torch.inference_mode():
            staged, ready = self._copy(crops)
            with self._lock:
                graph = self._graph_for(len(crops))
                with torch.cuda.stream(self._computing):
                    self._computing.wait_event(ready)
                    # Rows behind the last photo keep an earlier batch's crops; their embeddings are never read.
                    graph.crops[: len(crops)].copy_(staged, non_blocking=True)
                    staged.record_stream(self._computing)  # keeps its memory until that copy is done
                    graph.replay()
                    host.copy_(graph.rows[: len(crops)], non_blocking=True)
                    # A blocking event lets the waiting thread sleep, and its core decodes photos meanwhile.
                    done = torch.cuda.Event(blocking=True)
                    done.record(self._computing)

        def result() -> Embeddings:
            done.synchronize()
            return cast(Embeddings, host.numpy().copy())  # frees the pinned memory

        return result

    def _copy(self, crops: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """The crops in the device's memory, and the event after which they are there."""
        ready = torch.cuda.Event(blocking=False)
        if crops.device.type == "cuda":
            ready.record(torch.cuda.current_stream(self._device))  # the caller's stream made them
            return crops, ready
        pinned = crops.pin_memory()
        with torch.cuda.stream(self._copying):
            staged = pinned.to(self._device, non_blocking=True)
            ready.record(self._copying)
        return staged, ready

    def _graph_for(self, count: int) -> _Graph:
        size = next(size for size in self._sizes if size >= count)
        if size not in self._graphs:
            self._graphs[size] = self._capture(size, self._network.spec.crop)
        return self._graphs[size]

    def _capture(self, size: int, side: int) -> _Graph:
        with torch.cuda.stream(self._computing):
            crops = torch.zeros((size, side, side, 3), dtype=torch.uint8, device=self._device)
            for _ in range(WARM_UPS):  # libraries choose kernels and allocate now, which is forbidden during a capture
                self._network(crops)
        self._computing.synchronize()
        graph = torch.cuda.CUDAGraph()
        # "thread_local": other threads may copy or decode meanwhile.
        with torch.cuda.graph(graph, stream=self._computing, capture_error_mode="thread_local"):
            rows = self._network(crops)
        return _Graph(crops, rows, graph.replay)
