"""A runtime without weights, for tests of everything around the network."""

from pathlib import Path

import numpy as np

from model.card import Card
from model.runtimes.base import Pending
from model.types import Embeddings, Pixels

GRID = 8


class FakeRuntime:
    """Projects a crop's mean colours on an 8 x 8 grid to D values, so that similar pictures are near."""

    name = "fake"
    precision = "fake"
    batch = 32
    in_flight = 1

    def __init__(
        self, directory: Path, card: Card, precision: str | None = None, cache_dir: Path | None = None
    ) -> None:
        del directory, precision, cache_dir
        self.dim = card.embedding_dim
        self._projection = np.random.default_rng(0).standard_normal((GRID * GRID * 3, self.dim))

    def embed(self, crops: Pixels) -> Embeddings:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        count, side = len(crops), crops.shape[1] // GRID * GRID
        cells = crops[:, :side, :side].reshape(count, GRID, side // GRID, GRID, side // GRID, 3)
        means = cells.mean(axis=(2, 4)).reshape(count, -1) - 127.5
        # One row at a time: a matrix product's bits depend on how many rows it has.
        projected = np.stack([(row[:, None] * self._projection).sum(axis=0) for row in means])
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        embeddings: Embeddings = (projected / np.maximum(lengths, 1e-12)).astype(np.float32)
        return embeddings

    def submit(self, crops: Pixels, *, lone: bool = False) -> Pending:
        """Computes when somebody waits."""
        del lone
        return Pending(lambda: self.embed(crops))
