"""torch in fp32 or bf16: the default on CUDA, and in fp32 the reference that exports are measured against."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.card import BF16, FP32, Card
from model.errors import PrecisionMissing
from model.network.embedding_net import load_network
from model.runtimes.base import Pending
from model.runtimes.cuda_graphs import CudaGraphs
from model.types import Embeddings, Pixels

CPU_BATCH = 32
CUDA_BATCHES = (1, 8, 32, 64, 128, 256)
"""Batch shapes on CUDA: a query, an upload of some photos, and what an index is built with."""


class TorchRuntime:
    """The network itself.

    On CUDA, fp32 embeddings of one photo agree to about 1e-6 across batch shapes, not to the bit. bf16 is an embedding
    space of its own: sums are kept in fp32, but activations are rounded to 8 bits of mantissa.
    """

    name = "torch"

    def __init__(
        self,
        directory: Path,
        card: Card,
        precision: str | None = None,
        cache_dir: Path | None = None,
        device: str | None = None,
    ) -> None:
        del cache_dir  # nothing is compiled
        if precision not in (None, FP32, BF16):
            raise PrecisionMissing(f"The runtime torch runs a model in fp32 or bf16, not in {precision}; use openvino.")
        self.precision = precision or FP32
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_cuda = self.device.type == "cuda"
        if on_cuda:
            # TF32 keeps 10 bits of mantissa, which is another embedding than the card's fp32.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        network = load_network(directory, card).to(self.device).to(memory_format=torch.channels_last)
        self.network = network.in_bf16() if self.precision == BF16 else network
        self.dim = self.network.dim
        self._graphs = CudaGraphs(self.network, self.device, CUDA_BATCHES) if on_cuda else None
        self.batch = max(CUDA_BATCHES) if on_cuda else CPU_BATCH
        self.in_flight = 2 if on_cuda else 1

    def submit(self, crops: Pixels | Tensor, *, lone: bool = False) -> Pending:
        """Starts on uint8 (B, S, S, 3), in memory or on the device; on a CPU it computes when somebody waits."""
        del lone
        tensor = crops if isinstance(crops, Tensor) else torch.from_numpy(crops)
        start = self._graphs.start if self._graphs else self._on_cpu
        parts = [start(part) for part in torch.split(tensor, self.batch)] if len(tensor) else []
        return Pending(lambda: np.concatenate([np.empty((0, self.dim), np.float32), *(part() for part in parts)]))

    def embed(self, crops: Pixels) -> Embeddings:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        return self.submit(crops).wait()

    def _on_cpu(self, crops: Tensor) -> Callable[[], Embeddings]:
        def result() -> Embeddings:
            with torch.inference_mode():
                rows: Embeddings = self.network(crops.to(self.device)).cpu().numpy()
            return rows

        return result
