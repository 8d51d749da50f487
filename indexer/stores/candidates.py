"""Search by candidates: an index finds rows that may be the nearest, and their exact scores decide."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.stores.base import Neighbours
from indexer.stores.precision import Storage
from model.retrieval import exact_scores
from model.types import Embeddings, Rows

EXTRA_CANDIDATES = 8
RESCORED_BYTES = 64 << 20

Scores = npt.NDArray[np.float32]


class CandidateStore(ABC):
    """Unit rows whose scores are always `exact_scores` of `vectors`, whatever finds the candidates.

    The scores of an index are sums in float32, often of rounded values, and they depend on the number of queries in a
    call. They choose candidates; more are fetched while one that is left out has the index's score of one that is told,
    so that equal rows come in their order.
    """

    storage: Storage

    extra = EXTRA_CANDIDATES
    """Candidates beyond the rows that are asked for."""

    tolerance: float
    """Rows that are stored alike have scores of the index that differ by at most twice this."""

    @property
    @abstractmethod
    def dim(self) -> int: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def vectors(self, rows: Rows) -> Embeddings:
        """int64 (...) -> float32 (..., D), the vectors that scores are of."""

    @abstractmethod
    def selection(self, among: Rows | None) -> Any:
        """What `candidates` needs to search among some rows, ascending, or all."""

    @abstractmethod
    def candidates(self, queries: Embeddings, fetch: int, selection: Any) -> tuple[Scores, Rows]:
        """Scores of the index and rows, best first, both (B, fetch); -1 where there is no row.

        A search asks for twice as many where these were not enough.
        """

    @abstractmethod
    def best_of_groups(self, query: Embeddings, groups: Rows, k: int) -> tuple[Rows, Scores]:
        """The best row of each group, best first, of the k groups with the best ones, and their scores.

        `query` float32 (D,); `groups` int64 (N,) has the group of each row from 0, and -1 for a row that is left out.
        Scores and ties are exact.
        """

    @abstractmethod
    def set_threads(self, threads: int | None) -> None:
        """Limits the threads of the calls from this thread; None for one per core of the process."""

    def fetched(self, k: int) -> int:
        """How many candidates are fetched at first for k rows."""
        return k + self.extra

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        among: Rows | None = None,
        exclude_rows: Rows | None = None,
        threads: int | None = None,
    ) -> Neighbours:
        """The k nearest rows of each query; see `VectorStore.search`."""
        if among is not None and len(among) and (among[0] < 0 or among[-1] >= len(self) or (np.diff(among) <= 0).any()):
            raise ValueError("rows to search among are ascending and rows of the store")
        self.set_threads(threads)
        selection = self.selection(among)
        found = Neighbours(
            rows=np.full((len(queries), k), -1, np.int64), scores=np.full((len(queries), k), -np.inf, np.float32)
        )
        available = len(self) if among is None else len(among)
        pending = np.arange(len(queries))
        fetch = min(available, self.fetched(k) + (exclude_rows is not None))
        while fetch and len(pending):
            chunk = max(1, RESCORED_BYTES // (fetch * self.dim * 8))
            uncertain: list[Rows] = []
            for part in np.split(pending, range(chunk, len(pending), chunk)):
                excluded = None if exclude_rows is None else exclude_rows[part]
                approximate, rows = self.candidates(queries[part], fetch, selection)
                best, doubtful = self._best(queries[part], k, approximate, rows, excluded)
                found.rows[part, : best.rows.shape[1]] = best.rows
                found.scores[part, : best.scores.shape[1]] = best.scores
                uncertain.append(part[doubtful])
            pending = np.concatenate(uncertain) if fetch < available else pending[:0]
            fetch = min(available, 2 * fetch)
        return found

    def _best(
        self, queries: Embeddings, k: int, approximate: Scores, rows: Rows, excluded: Rows | None
    ) -> tuple[Neighbours, npt.NDArray[np.bool_]]:
        """The best k of some candidates, and for which queries more candidates have to be looked at."""
        exact = exact_scores(queries, self.vectors(rows))
        left_out = rows < 0
        if excluded is not None:
            left_out |= rows == excluded[:, None]
        exact[left_out] = -np.inf
        order = np.lexsort((rows, -exact), axis=1)[:, :k]
        scores, best = np.take_along_axis(exact, order, 1), np.take_along_axis(rows, order, 1)
        chosen = np.take_along_axis(np.where(left_out, -np.inf, approximate), order, 1)
        enough = chosen.shape[1] == k
        doubtful = approximate[:, -1] + 2 * self.tolerance >= chosen.min(axis=1) if enough else np.full(len(rows), True)
        return Neighbours(np.where(np.isneginf(scores), -1, best), scores), doubtful | np.isneginf(scores[:, -1])


class LocalStore(CandidateStore):
    """A store that can score all its rows in this process."""

    error: float
    """An upper bound of the difference between `all_scores` and the exact score."""

    @abstractmethod
    def all_scores(self, query: Embeddings) -> Scores:
        """The scores of all rows for a query float32 (D,), on one thread: float32 (N,)."""

    def best_of_groups(self, query: Embeddings, groups: Rows, k: int) -> tuple[Rows, Scores]:
        """See `CandidateStore`; all rows are scored once, and those that may be the best are rescored."""
        self.set_threads(1)
        approximate = self.all_scores(query).astype(np.float64)
        approximate[groups < 0] = -np.inf
        best = np.full(groups.max(initial=-1) + 2, -np.inf)  # the last is for the rows that are left out
        np.maximum.at(best, groups, approximate)
        lowest = np.partition(best, -k)[-k] if k < len(best) else -np.inf
        may_be_best = approximate >= np.maximum(best[groups], lowest) - 2 * self.error
        rows = np.flatnonzero(may_be_best & (groups >= 0))
        chunk = max(1, RESCORED_BYTES // (self.dim * 8))
        parts = [self.vectors(part)[None] for part in np.split(rows, range(chunk, len(rows), chunk))]
        exact = np.concatenate([exact_scores(query[None], part)[0] for part in parts])
        order = np.lexsort((rows, -exact))
        _, first = np.unique(groups[rows[order]], return_index=True)
        chosen = order[np.sort(first)[:k]]
        return rows[chosen], exact[chosen]
