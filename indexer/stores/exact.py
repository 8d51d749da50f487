"""Exact search over vectors where they lie, in memory or in a mapped file: nothing is copied."""

from typing import Any

import numpy as np

from indexer.stores.candidates import LocalStore, Scores
from indexer.stores.originals import UNIT_TOLERANCE, Originals
from indexer.stores.precision import Storage
from model.cores import available_cores
from model.errors import missing_dependency
from model.retrieval import score_tolerance
from model.types import Embeddings, Rows

# FAISS's stubs lack search parameters, callback writers and the result of `search`: the ignores here and beside this.
try:
    import faiss
except ModuleNotFoundError as problem:
    raise missing_dependency(problem) or problem from problem


def set_threads(threads: int | None) -> None:
    """Limits FAISS's threads, and those of its BLAS, for the calls that this thread makes next."""
    faiss.omp_set_num_threads(threads or available_cores())


def id_selector(among: Rows) -> Any:
    """FAISS's selector of some rows, ascending: a run is searched as if it were all, others are looked up by number."""
    if len(among) and among[-1] - among[0] == len(among) - 1:
        return faiss.IDSelectorRange(int(among[0]), int(among[-1]) + 1)
    return faiss.IDSelectorArray(np.ascontiguousarray(among, np.int64))


def bitmap_selector(among: Rows, count: int) -> Any:
    """FAISS's selector for those indexes that ask of every row whether it is selected."""
    wanted = np.zeros(count, np.bool_)
    wanted[among] = True
    return faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))  # type: ignore[call-arg, arg-type]  # SWIG


class ExactStore(LocalStore):
    """Unit rows float32 (n, D), compared with every query one by one."""

    storage = Storage.fp32

    def __init__(self, originals: Originals) -> None:
        self._originals = originals
        self.tolerance = self.error = score_tolerance(self.dim) * (1 + UNIT_TOLERANCE)

    @property
    def dim(self) -> int:
        return int(self._originals.matrix.shape[1])

    def __len__(self) -> int:
        return len(self._originals)

    def vectors(self, rows: Rows) -> Embeddings:
        return self._originals.at(rows)

    def set_threads(self, threads: int | None) -> None:
        set_threads(threads)

    def selection(self, among: Rows | None) -> Any:
        return None if among is None else id_selector(among)

    def candidates(self, queries: Embeddings, fetch: int, selection: Any) -> tuple[Scores, Rows]:
        scores, rows = np.empty((len(queries), fetch), np.float32), np.empty((len(queries), fetch), np.int64)
        asked, all_rows = np.ascontiguousarray(queries, np.float32), self._originals.matrix
        pointers = [faiss.swig_ptr(array) for array in (asked, all_rows, scores, rows)]
        faiss.knn_inner_product(*pointers[:2], self.dim, len(asked), len(self), fetch, *pointers[2:], selection)  # type: ignore[call-arg]  # SWIG
        return scores, rows

    def all_scores(self, query: Embeddings) -> Scores:
        scores = np.empty(len(self), np.float32)
        pointers = [faiss.swig_ptr(array) for array in (scores, np.ascontiguousarray(query), self._originals.matrix)]
        faiss.fvec_inner_products_ny(*pointers, self.dim, len(self))  # type: ignore[attr-defined]  # SWIG
        return scores
