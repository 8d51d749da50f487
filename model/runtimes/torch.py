"""torch in fp32 or bf16: the default on CUDA, and in fp32 the reference that exports are measured against."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.card import BF16, FP32, Card
from model.errors import PrecisionMissing
from model.network.embedding_net import EmbeddingNetwork, load_network
from model.runtimes.base import Pending
from model.runtimes.cuda_graphs import FixedShapes
from model.types import Pixels

CPU_BATCH = 32
CUDA_SHAPES = (1, 8, 32, 64, 128, 256)
"""Batch shapes on CUDA: a query, an upload of some photos, and what an index is built with."""


class TorchRuntime:
    """The network itself.

    On CUDA, fp32 embeddings of one photo agree to about 1e-6 across batch shapes, not to the bit. bf16 is a space of
    its own; sums are kept in fp32 there, but what lies between two layers is rounded to 8 bits of mantissa.
    """

    name = "torch"

    def __init__(
        self,
        directory: Path,
        card: Card,
        precision: str | None = None,
        cache_dir: Path | None = None,
        device: str | None = None,
        shapes: Sequence[int] | None = None,
    ) -> None:
        """`shapes` are the batch shapes to compute in; by default fixed ones on CUDA, and on a CPU whatever comes."""
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
        self.network = _on_device(load_network(directory, card), self.precision, self.device)
        self.dim = self.network.dim
        chosen = shapes if shapes is not None else CUDA_SHAPES if on_cuda else ()
        self._shapes = FixedShapes(self.network, self.device, chosen) if chosen else None
        self.batch = max(chosen, default=CPU_BATCH)
        self.in_flight = 2 if on_cuda else 1
        self.enough = 1  # a batch computes a photo far cheaper than a photo alone

    def submit(self, crops: Pixels | Tensor, *, lone: bool = False) -> Pending:
        """Starts on uint8 (B, S, S, 3), in memory or on the device; lone photos get no more of it than others."""
        del lone
        tensor = crops if isinstance(crops, Tensor) else torch.from_numpy(crops)
        start = self._shapes.start if self._shapes else self._compute
        parts = [start(part) for part in torch.split(tensor, self.batch)] if len(tensor) else []
        return Pending(lambda: np.concatenate([np.empty((0, self.dim), np.float32), *(part() for part in parts)]))

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        return self.submit(crops).wait()

    def _compute(self, crops: Tensor) -> Callable[[], npt.NDArray[np.float32]]:
        with torch.inference_mode():
            rows: npt.NDArray[np.float32] = self.network(crops.to(self.device)).cpu().numpy()
        return lambda: rows


def _on_device(network: EmbeddingNetwork, precision: str, device: torch.device) -> EmbeddingNetwork:
    placed = network.to(device).to(memory_format=torch.channels_last)
    return placed.in_bf16() if precision == BF16 else placed
