"""A runtime without weights: a fixed projection of the shrunken photo, for tests of everything around the network."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.card import Card
from model.types import Pixels

GRID = 8


class FakeRuntime:
    """Embeds a crop by its mean colours on an 8 x 8 grid, projected to D values; similar pictures are near."""

    name = "fake"
    precision = "fake"

    def __init__(
        self, directory: Path, card: Card, precision: str | None = None, cache_dir: Path | None = None
    ) -> None:
        del directory, precision, cache_dir
        self.dim = card.embedding_dim
        self._projection = np.random.default_rng(0).standard_normal((GRID * GRID * 3, self.dim))

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        count, side = len(crops), crops.shape[1] // GRID * GRID
        cells = crops[:, :side, :side].reshape(count, GRID, side // GRID, GRID, side // GRID, 3)
        means = cells.mean(axis=(2, 4)).reshape(count, -1) - 127.5
        # One row at a time: a matrix product's bits depend on how many rows it has.
        projected = np.stack([(row[:, None] * self._projection).sum(axis=0) for row in means])
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        embeddings: npt.NDArray[np.float32] = (projected / np.maximum(lengths, 1e-12)).astype(np.float32)
        return embeddings
