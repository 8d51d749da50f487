"""FAISS: exact inner-product search over vectors in fp32, fp16 or 8 bits; fp32 on a GPU where FAISS has one."""

import functools
import os
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.stores.base import Neighbours
from indexer.stores.precision import Storage
from model.errors import CarsearchError, IndexInvalid, missing_dependency
from model.retrieval import exact_scores

# FAISS's stubs know neither search parameters, nor callback writers, nor what `search` returns: the ignores below.
try:
    import faiss
except ModuleNotFoundError as problem:
    raise missing_dependency(problem) or problem from problem

from indexer.stores.codes import StoredRows, check_index, new_index  # needs faiss
from model.types import Embeddings, Rows

# From so many values in a call (4 queries of 512) fp32 rows are multiplied as matrices; FAISS's own 128,000 is what
# takes 250 queries, below which it reads every row again for each query: 32 queries then take four times as long.
faiss.cvar.distance_compute_blas_threshold = 2_048

DISTRIBUTIONS = (
    *("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cu12-cuvs"),
    *("faiss-gpu-cu13-cuvs", "faiss-cuda", "faiss-cuda-cu128"),
)
SLACK = 8
RESCORED_BYTES = 64 << 20
GPU_MAX_K = 2048
HEADER_BYTES = 1 << 16
LETTERS = {Storage.fp32: b"IxFI", Storage.fp16: b"IxSQ", Storage.sq8: b"IxSQ"}
"""What a file begins with, by which FAISS chooses among its readers."""


@functools.cache
def installed_distributions() -> list[str]:
    """The installed packages that bring a module named faiss."""
    found = []
    for name in DISTRIBUTIONS:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def refuse_two_distributions() -> None:
    """Raises CarsearchError when two packages fight for the name faiss: which one is imported is chance."""
    found = installed_distributions()
    if len(found) > 1:
        raise CarsearchError(f"Both {' and '.join(found)} are installed; keep one: pip uninstall {found[0]}.")


class FaissStore:
    """Unit rows, in fp32 or a storage that rounds them; scores are those of the rows as they are stored.

    FAISS finds the candidates; their scores are then summed again in float64, because float32 sums differ with the
    number of queries in a call, and the order of equals would be chance.
    """

    def __init__(self, index: Any, storage: Storage = Storage.fp32) -> None:
        refuse_two_distributions()
        self.storage = storage
        self._index = index
        self._stored = StoredRows.of(index, storage)
        self._tolerance = self._stored.tolerance
        self._gpu_index: Any = None
        self._gpu_lock = threading.Lock()

    @classmethod
    def create(cls, embeddings: Embeddings, storage: Storage = Storage.fp32) -> "FaissStore":
        """A store of unit rows float32 (n, D); 8-bit ranges need at least one row."""
        return cls(new_index(embeddings, storage), storage)

    @classmethod
    def read(cls, path: Path, dim: int, count: int, storage: Storage = Storage.fp32) -> "FaissStore":
        """Reads an index whose file has been verified; raises IndexInvalid when it is not what its manifest says."""
        _refuse_other_kinds(path, storage)
        # Memory for what the manifest says and no more, whatever a forged header claims.
        faiss.set_deserialization_vector_byte_limit(storage.bytes_a_value * dim * count + HEADER_BYTES)
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
        return int(self._index.d)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def write(self, path: Path) -> None:
        # FAISS's own file writer loses the error of closing a file: a full disk leaves a short one, silently.
        with path.open("wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]  # stubs lack it

    def vectors(self, rows: Rows) -> Embeddings:
        return self._stored.decoded(rows)

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        among: Rows | None = None,
        exclude: Rows | None = None,
        threads: int | None = None,
    ) -> Neighbours:
        """The k nearest rows of each query; see `VectorStore.search`."""
        # OpenMP's number belongs to the calling thread, and FAISS's BLAS asks OpenMP: it is set here, on every call.
        faiss.omp_set_num_threads(threads or len(os.sched_getaffinity(0)))
        selected = None if among is None else self._selection(among)
        found = Neighbours(
            rows=np.full((len(queries), k), -1, np.int64), scores=np.full((len(queries), k), -np.inf, np.float32)
        )
        available = len(self) if among is None else len(among)
        todo = np.arange(len(queries))
        fetch = min(available, k + (exclude is not None) + SLACK)
        while fetch and len(todo):
            chunk = max(1, RESCORED_BYTES // (fetch * self.dim * 8))
            unsure: list[Rows] = []
            for part in np.split(todo, range(chunk, len(todo), chunk)):
                best, doubtful = self._best(
                    queries[part], k, fetch, selected, None if exclude is None else exclude[part]
                )
                found.rows[part, : best.rows.shape[1]] = best.rows
                found.scores[part, : best.scores.shape[1]] = best.scores
                unsure.append(part[doubtful])
            todo = np.concatenate(unsure) if fetch < available else todo[:0]
            fetch = min(available, 2 * fetch)
        return found

    def _best(
        self, queries: Embeddings, k: int, fetch: int, selected: Any, exclude: Rows | None
    ) -> tuple[Neighbours, npt.NDArray[np.bool_]]:
        """The best k of `fetch` candidates, and for which queries an equal or better row may lie beyond those."""
        raw, rows = self._candidates(queries, fetch, selected)
        exact = exact_scores(queries, self._stored.decoded(rows))
        exact[rows < 0] = -np.inf
        if exclude is not None:
            exact[rows == exclude[:, None]] = -np.inf
        order = np.lexsort((rows, -exact), axis=1)[:, :k]
        scores, best = np.take_along_axis(exact, order, 1), np.take_along_axis(rows, order, 1)
        doubtful = raw[:, -1] + 2 * self._tolerance >= scores[:, -1]
        return Neighbours(np.where(np.isneginf(scores), -1, best), scores), doubtful

    def _candidates(self, queries: Embeddings, fetch: int, selected: Any) -> tuple[npt.NDArray[np.float32], Rows]:
        if selected is not None:
            # GPU indexes take no selector, so a filtered search runs on the CPU's copy.
            return self._index.search(queries, fetch, params=selected)  # type: ignore[no-any-return]  # FAISS has no types
        if self.storage.lossy or fetch > GPU_MAX_K or not gpus():  # FAISS has no such storage on a GPU
            return self._index.search(queries, fetch)  # type: ignore[no-any-return]  # FAISS has no types
        with self._gpu_lock:  # a GPU index is not safe even for two readers
            if self._gpu_index is None:
                self._gpu_index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._index)
            return self._gpu_index.search(queries, fetch)  # type: ignore[no-any-return]  # FAISS has no types

    def _selection(self, among: Rows) -> Any:
        """What makes FAISS look at some rows only; the fastest of its selectors for the rows and the storage.

        A run of fp32 rows is searched as if it were the index; other fp32 rows are looked up one by one; the scalar
        quantizer asks of every row whether it is wanted, and a bit is the fastest answer.
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


def _refuse_other_kinds(path: Path, storage: Storage) -> None:
    """Raises IndexInvalid for a file that begins otherwise: FAISS's readers of all its other kinds never run."""
    try:
        with path.open("rb") as file:
            letters = file.read(len(LETTERS[storage]))
    except OSError as problem:
        raise IndexInvalid(f"{path} cannot be read: {problem.strerror}.") from problem
    if letters != LETTERS[storage]:
        raise IndexInvalid(f"{path} begins with {letters!r}; it is not an {storage.recipe['kind']}.")


def gpus() -> int:
    """How many GPUs the installed FAISS can use; 0 for the CPU builds."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
