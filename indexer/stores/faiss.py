"""FAISS: exact inner-product search (IndexFlatIP), on a GPU where the installed FAISS has one."""

import functools
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.stores.base import Neighbours
from model.errors import CarsearchError, DimMismatch, IndexInvalid, missing_dependency
from model.metrics import Embeddings, Rows, exact_scores, score_tolerance

# FAISS's stubs know neither search parameters, nor callback writers, nor what `search` returns: the ignores below.
try:
    import faiss
except ModuleNotFoundError as problem:
    raise missing_dependency(problem) or problem from problem

RECIPE = {"kind": "IndexFlatIP"}
"""What goes into an index manifest: how the vectors are stored."""

DISTRIBUTIONS = (
    *("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cu12-cuvs"),
    *("faiss-gpu-cu13-cuvs", "faiss-cuda", "faiss-cuda-cu128"),
)
SLACK = 8
RESCORED_BYTES = 64 << 20
GPU_MAX_K = 2048
HEADER_BYTES = 1 << 16


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
    """Unit rows in an IndexFlatIP.

    FAISS finds the candidates; their scores are then summed again in float64, because float32 sums differ with the
    number of queries in a call, and the order of equals would be chance.
    """

    def __init__(self, index: Any) -> None:
        refuse_two_distributions()
        self._index = index
        self._gpu_index: Any = None
        self._gpu_lock = threading.Lock()

    @classmethod
    def create(cls, embeddings: Embeddings) -> "FaissStore":
        """A store of unit rows float32 (n, D)."""
        index = faiss.IndexFlatIP(embeddings.shape[1])
        index.add(np.ascontiguousarray(embeddings))
        return cls(index)

    @classmethod
    def read(cls, path: Path, dim: int, count: int) -> "FaissStore":
        """Reads an index whose file has been verified; raises IndexInvalid when it is not what its manifest says."""
        # Memory for what the manifest says and no more, whatever a forged header claims.
        faiss.set_deserialization_vector_byte_limit(4 * dim * count + HEADER_BYTES)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as problem:
            raise IndexInvalid(f"{path} is not an index that FAISS can read.") from problem
        if type(index) is not faiss.IndexFlatIP:
            raise IndexInvalid(f"{path} holds a {type(index).__name__}, not an IndexFlatIP.")
        if index.d != dim:
            raise DimMismatch(f"{path} has {index.d} dimensions, its manifest says {dim}.")
        if index.ntotal != count:
            raise IndexInvalid(f"{path} has {index.ntotal} rows, its manifest says {count}.")
        store = cls(index)
        if not np.allclose(np.linalg.norm(store._matrix(), axis=1), 1, atol=1e-3):
            raise IndexInvalid(f"{path} holds rows that are not unit vectors.")
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
        copied: Embeddings = self._matrix()[rows]
        return copied

    def search(
        self, queries: Embeddings, k: int, *, among: Rows | None = None, exclude: Rows | None = None
    ) -> Neighbours:
        """The k nearest rows of each query; see `VectorStore.search`."""
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
                best, doubtful = self._best(queries[part], k, fetch, among, None if exclude is None else exclude[part])
                found.rows[part, : best.rows.shape[1]] = best.rows
                found.scores[part, : best.scores.shape[1]] = best.scores
                unsure.append(part[doubtful])
            todo = np.concatenate(unsure) if fetch < available else todo[:0]
            fetch = min(available, 2 * fetch)
        return found

    def _best(
        self, queries: Embeddings, k: int, fetch: int, among: Rows | None, exclude: Rows | None
    ) -> tuple[Neighbours, npt.NDArray[np.bool_]]:
        """The best k of `fetch` candidates, and for which queries an equal or better row may lie beyond those."""
        raw, rows = self._candidates(queries, fetch, among)
        exact = exact_scores(queries, self._matrix()[rows])
        exact[rows < 0] = -np.inf
        if exclude is not None:
            exact[rows == exclude[:, None]] = -np.inf
        order = np.lexsort((rows, -exact), axis=1)[:, :k]
        scores, best = np.take_along_axis(exact, order, 1), np.take_along_axis(rows, order, 1)
        doubtful = raw[:, -1] + 2 * score_tolerance(self.dim) >= scores[:, -1]
        return Neighbours(np.where(np.isneginf(scores), -1, best), scores), doubtful

    def _candidates(self, queries: Embeddings, fetch: int, among: Rows | None) -> tuple[npt.NDArray[np.float32], Rows]:
        if among is not None:
            # GPU indexes take no selector, so a filtered search runs on the CPU's copy.
            selected: Any = faiss.SearchParameters(sel=faiss.IDSelectorBatch(among))  # type: ignore[call-arg]  # SWIG takes what the stubs do not
            return self._index.search(queries, fetch, params=selected)  # type: ignore[no-any-return]
        if fetch > GPU_MAX_K or not gpus():
            return self._index.search(queries, fetch)  # type: ignore[no-any-return]
        with self._gpu_lock:  # a GPU index is not safe even for two readers
            if self._gpu_index is None:
                self._gpu_index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._index)
            return self._gpu_index.search(queries, fetch)  # type: ignore[no-any-return]

    def _matrix(self) -> Embeddings:
        """All rows without a copy: float32 (n, D)."""
        if not len(self):
            return np.empty((0, self.dim), np.float32)
        matrix: Embeddings = faiss.rev_swig_ptr(self._index.get_xb(), len(self) * self.dim).reshape(-1, self.dim)
        return matrix


def gpus() -> int:
    """How many GPUs the installed FAISS can use; 0 for the CPU builds."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
