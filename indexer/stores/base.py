"""The interface of a vector store: unit rows in, nearest rows out, exactly and in a fixed order."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from model.types import Embeddings, Rows


class Neighbours(NamedTuple):
    """Nearest rows of each query, best first: rows int64 (B, k), scores float32 (B, k).

    Where fewer than k exist, rows are -1 and scores -inf.
    """

    rows: Rows
    scores: npt.NDArray[np.float32]


class VectorStore(Protocol):
    """Unit rows under inner product. Safe to search from several threads."""

    def __len__(self) -> int: ...

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        among: Rows | None = None,
        exclude_rows: Rows | None = None,
        threads: int | None = None,
    ) -> Neighbours:
        """The k nearest rows of each unit query float32 (B, D) by `model.retrieval.exact_scores`; ties to lower rows.

        `among` int64 (n,), ascending, restricts the answer to some rows; `exclude_rows` int64 (B,) leaves out one row
        for each query. `threads` limits the threads of this call; the default is one per core of the process.
        """
        ...
