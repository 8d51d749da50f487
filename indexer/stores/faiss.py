"""FAISS: exact inner-product search over vectors in fp32, fp16 or 8 bits; fp32 on a GPU where FAISS has one."""

import functools
import threading
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.stores.base import Neighbours
from indexer.stores.precision import Storage
from model.cores import available_cores
from model.errors import CarsearchError, IndexInvalid, missing_dependency
from model.retrieval import exact_scores
from model.types import Embeddings, Rows

# FAISS's stubs lack search parameters, callback writers and the result of `search`: the ignores below.
try:
    import faiss
except ModuleNotFoundError as problem:
    raise missing_dependency(problem) or problem from problem

from indexer.stores.codes import StoredRows, check_index, new_index  # needs faiss

# Calls with at least this many query values (4 queries of 512) use matrix products. FAISS's default is 128,000 (250
# queries); below it every row is read again for each query, and 32 queries take four times as long.
faiss.cvar.distance_compute_blas_threshold = 2_048

EXTRA_CANDIDATES = 8
RESCORED_BYTES = 64 << 20
GPU_MAX_K = 2048
HEADER_BYTES = 1 << 16
FOURCC = {Storage.fp32: b"IxFI", Storage.fp16: b"IxSQ", Storage.sq8: b"IxSQ"}
"""The first four bytes of a file, by which FAISS chooses among its readers."""


@functools.cache
def installed_distributions() -> list[str]:
    """The installed packages that bring a module named faiss."""
    names = (one.name for one in distributions())
    return sorted({name for name in names if name.startswith(("faiss-cpu", "faiss-gpu", "faiss-cuda"))})


def refuse_two_distributions() -> None:
    """Raises CarsearchError when two packages bring a module named faiss: it is undefined which one is imported."""
    found = installed_distributions()
    if len(found) > 1:
        raise CarsearchError(f"Both {' and '.join(found)} are installed; keep one: pip uninstall {found[0]}.")


class FaissStore:
    """Unit rows in fp32 or a storage that rounds them; scores are those of the stored rows.

    FAISS finds candidates, which are then rescored in float64: FAISS's float32 sums depend on the number of queries in
    a call, and the order of equal rows would be undefined.
    """

    def __init__(self, index: Any, storage: Storage = Storage.fp32) -> None:
        refuse_two_distributions()
        self.storage = storage
        self.index = index
        self._stored = StoredRows.of(index, storage)
        self.tolerance = self._stored.tolerance
        self._gpu_index: Any = None
        self._gpu_lock = threading.Lock()

    @classmethod
    def create(cls, embeddings: Embeddings, storage: Storage = Storage.fp32) -> "FaissStore":
        """A store of unit rows float32 (n, D); 8-bit ranges need at least one row."""
        return cls(new_index(embeddings, storage), storage)

    @classmethod
    def read(cls, path: Path, dim: int, count: int, storage: Storage = Storage.fp32) -> "FaissStore":
        """Reads an index whose file has been verified; raises IndexInvalid when it is not what its manifest says."""
        _check_fourcc(path, storage)
        # No more memory than the manifest says, whatever a forged header claims.
        faiss.set_deserialization_vector_byte_limit(storage.bytes_per_value * dim * count + HEADER_BYTES)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as problem:
            raise IndexInvalid(f"{path} is not an index that FAISS can read.") from problem
        check_index(index, storage, dim, count, path)
        store = cls(index, storage)
        store._stored.check_unit(path)
        return store

    @property
    def dim(self) -> int:
        return int(self.index.d)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def write(self, path: Path) -> None:
        # FAISS's own file writer ignores errors on closing: on a full disk it leaves a short file, silently.
        with path.open("wb") as file:
            faiss.write_index(self.index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]  # stubs lack it

    def vectors(self, rows: Rows) -> Embeddings:
        return self._stored.decoded(rows)

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
        # Set on every call, because OpenMP's number of threads belongs to the calling thread; FAISS's BLAS uses it too.
        faiss.omp_set_num_threads(threads or available_cores())
        selector = None if among is None else self._selector(among)
        found = Neighbours(
            rows=np.full((len(queries), k), -1, np.int64), scores=np.full((len(queries), k), -np.inf, np.float32)
        )
        available = len(self) if among is None else len(among)
        pending = np.arange(len(queries))
        fetch = min(available, k + (exclude_rows is not None) + EXTRA_CANDIDATES)
        while fetch and len(pending):
            chunk = max(1, RESCORED_BYTES // (fetch * self.dim * 8))
            uncertain: list[Rows] = []
            for part in np.split(pending, range(chunk, len(pending), chunk)):
                excluded = None if exclude_rows is None else exclude_rows[part]
                best, doubtful = self._best(queries[part], k, fetch, selector, excluded)
                found.rows[part, : best.rows.shape[1]] = best.rows
                found.scores[part, : best.scores.shape[1]] = best.scores
                uncertain.append(part[doubtful])
            pending = np.concatenate(uncertain) if fetch < available else pending[:0]
            fetch = min(available, 2 * fetch)
        return found

    def best_of_groups(self, query: Embeddings, groups: Rows, k: int) -> tuple[Rows, npt.NDArray[np.float32]]:
        """The best row of each group, best first, of the k groups with the best ones, and their scores.

        `query` float32 (D,); `groups` int64 (N,) has the group of each row from 0, and -1 for a row that is left out.
        Scores and ties are those of `search`. FAISS scores all rows once; those that may be the best are rescored.
        """
        faiss.omp_set_num_threads(1)
        _, scores, order = self.index.range_search(query[None], -np.inf)  # not in the order of the rows
        approximate = np.empty(len(self))
        approximate[order] = scores
        approximate[groups < 0] = -np.inf
        best = np.full(groups.max(initial=-1) + 2, -np.inf)  # the last is for the rows that are left out
        np.maximum.at(best, groups, approximate)
        lowest = np.partition(best, -k)[-k] if k < len(best) else -np.inf
        may_be_best = approximate >= np.maximum(best[groups], lowest) - 2 * self.tolerance
        rows = np.flatnonzero(may_be_best & (groups >= 0))
        chunk = max(1, RESCORED_BYTES // (self.dim * 8))
        parts = [self.vectors(part)[None] for part in np.split(rows, range(chunk, len(rows), chunk))]
        exact = np.concatenate([exact_scores(query[None], part)[0] for part in parts])
        order = np.lexsort((rows, -exact))
        _, first = np.unique(groups[rows[order]], return_index=True)
        chosen = order[np.sort(first)[:k]]
        return rows[chosen], exact[chosen]

    def _best(
        self, queries: Embeddings, k: int, fetch: int, selector: Any, excluded: Rows | None
    ) -> tuple[Neighbours, npt.NDArray[np.bool_]]:
        """The best k of `fetch` candidates, and for which queries an equal or better row may exist beyond those."""
        approximate, rows = self._candidates(queries, fetch, selector)
        exact = exact_scores(queries, self._stored.decoded(rows))
        exact[rows < 0] = -np.inf
        if excluded is not None:
            exact[rows == excluded[:, None]] = -np.inf
        order = np.lexsort((rows, -exact), axis=1)[:, :k]
        scores, best = np.take_along_axis(exact, order, 1), np.take_along_axis(rows, order, 1)
        doubtful = approximate[:, -1] + 2 * self.tolerance >= scores[:, -1]
        return Neighbours(np.where(np.isneginf(scores), -1, best), scores), doubtful

    def _candidates(self, queries: Embeddings, fetch: int, selector: Any) -> tuple[npt.NDArray[np.float32], Rows]:
        if selector is not None:
            # GPU indexes take no selector, so a filtered search runs on the CPU's copy.
            return self.index.search(queries, fetch, params=selector)  # type: ignore[no-any-return]  # FAISS has no types
        if self.storage.lossy or fetch > GPU_MAX_K or not gpus():  # on a GPU FAISS is used for fp32 only
            return self.index.search(queries, fetch)  # type: ignore[no-any-return]  # FAISS has no types
        with self._gpu_lock:  # a GPU index is not safe even for two readers
            if self._gpu_index is None:
                self._gpu_index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self.index)
            return self._gpu_index.search(queries, fetch)  # type: ignore[no-any-return]  # FAISS has no types

    def _selector(self, among: Rows) -> Any:
        """Search parameters with the selector that is fastest for some rows.

        A range is searched as if it were the index, and other fp32 rows are looked up one by one. The scalar quantizer
        asks for every row whether it is selected, which a bitmap answers fastest.
        """
        if len(among) and (among[0] < 0 or among[-1] >= len(self) or (np.diff(among) <= 0).any()):
            raise ValueError("rows to search among are ascending and rows of the store")
        selector: Any
        if self.storage.lossy:
            wanted = np.zeros(len(self), np.bool_)
            wanted[among] = True
            selector = faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))  # type: ignore[call-arg, arg-type]  # SWIG again
        elif len(among) and among[-1] - among[0] == len(among) - 1:
            selector = faiss.IDSelectorRange(int(among[0]), int(among[-1]) + 1)
        else:
            selector = faiss.IDSelectorArray(np.ascontiguousarray(among, np.int64))
        return faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]  # SWIG takes what the stubs do not


def _check_fourcc(path: Path, storage: Storage) -> None:
    """Raises IndexInvalid for a file that begins otherwise, so that FAISS's other readers never run."""
    try:
        with path.open("rb") as file:
            fourcc = file.read(len(FOURCC[storage]))
    except OSError as problem:
        raise IndexInvalid(f"{path} cannot be read: {problem.strerror}.") from problem
    if fourcc != FOURCC[storage]:
        raise IndexInvalid(f"{path} begins with {fourcc!r}; it is not an {storage.recipe['kind']}.")


def gpus() -> int:
    """How many GPUs the installed FAISS can use; 0 for the CPU builds."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
