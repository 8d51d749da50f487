"""torch in fp32 or bf16: the default on CUDA, and in fp32 the reference that exports are measured against."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.card import BF16, FP32, Card
from model.errors import PrecisionMissing
from model.network.embedding_net import load_network
from model.runtimes.base import Pending
from model.types import Embeddings, Pixels

CPU_BATCH, CUDA_BATCH = 32, 256
"""The most photos that the network gets at once."""


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
        self._on_cuda = self.device.type == "cuda"
        if self._on_cuda:
            # TF32 keeps 10 bits of mantissa, which is another embedding than the card's fp32.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        network = load_network(directory, card).to(self.device).to(memory_format=torch.channels_last)
        self.network = network.in_bf16() if self.precision == BF16 else network
        self.dim = self.network.dim
        self.batch = CUDA_BATCH if self._on_cuda else CPU_BATCH
        self.in_flight = 2 if self._on_cuda else 1

    def submit(self, crops: Pixels, *, lone: bool = False) -> Pending:
        """Starts on uint8 (B, S, S, 3): CUDA computes while others work, a CPU when somebody waits."""
        del lone
        parts = (crops[start : start + self.batch] for start in range(0, len(crops), self.batch))
        rows: Iterable[Tensor] = map(self._rows, parts)
        if self._on_cuda:
            rows = list(rows)  # which launches the work and waits for none of it

        def result() -> Embeddings:
            return np.concatenate([np.empty((0, self.dim), np.float32), *(one.cpu().numpy() for one in rows)])

        return Pending(result)

    def embed(self, crops: Pixels) -> Embeddings:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        return self.submit(crops).wait()

    def _rows(self, crops: Pixels) -> Tensor:
        """uint8 (B, S, S, 3) -> float32 (B, D) on the device."""
        with torch.inference_mode():
            rows: Tensor = self.network(torch.from_numpy(crops).to(self.device, non_blocking=True))
        return rows
