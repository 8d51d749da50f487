"""What every vector store does: rows in, nearest rows out, exactly and in one order."""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from model.metrics import Embeddings, Rows


class Neighbours(NamedTuple):
    """Nearest rows of each query, best first; where fewer than k exist, rows are -1 and scores -inf.

    rows int64 (B, k), scores float32 (B, k).
    """

    rows: Rows
    scores: npt.NDArray[np.float32]


class VectorStore(Protocol):
    """Unit rows under inner product; safe to search from several threads."""

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int: ...

    def vectors(self, rows: Rows) -> Embeddings:
        """Stored rows: int64 (n,) -> float32 (n, D)."""
        ...

    def search(
        self, queries: Embeddings, k: int, *, among: Rows | None = None, exclude: Rows | None = None
    ) -> Neighbours:
        """The k nearest rows of each query float32 (B, D), by `model.metrics.exact_scores`, ties to the lowest row.

        `among` restricts the answer to some rows; `exclude` int64 (B,) leaves one row out for each query.
        """
        ...

    def write(self, path: Path) -> None:
        """Writes the store to a file, not yet durably."""
        ...
