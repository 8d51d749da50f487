"""torch in fp32: the default on CUDA, and the reference that exports are measured against."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from model.card import FP32, Card
from model.errors import PrecisionMissing
from model.network import load_network
from model.preprocess import Pixels

BATCH = 64


class TorchRuntime:
    """The network itself. On CUDA, embeddings of one photo agree to about 1e-6 across batch sizes, not to the bit."""

    name = "torch"
    precision = FP32

    def __init__(
        self,
        directory: Path,
        card: Card,
        precision: str | None = None,
        cache_dir: Path | None = None,
        device: str | None = None,
    ) -> None:
        del cache_dir  # nothing is compiled
        if precision not in (None, FP32):
            raise PrecisionMissing(f"The runtime torch runs a model in fp32 and not in {precision}; use openvino.")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cuda":
            # TF32 keeps 10 bits of mantissa, which is another embedding than the card's fp32.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        network = load_network(directory, card).to(self.device)
        self._network = network.to(memory_format=torch.channels_last)
        self.dim = network.dim

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        rows: list[npt.NDArray[np.float32]] = [np.empty((0, self.dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(crops), BATCH):
                batch = torch.from_numpy(crops[start : start + BATCH]).to(self.device, non_blocking=True)
                rows.append(self._network(batch).cpu().numpy())
        return np.concatenate(rows)
