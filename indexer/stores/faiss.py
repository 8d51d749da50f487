"""FAISS: inner-product search over all vectors in fp32, fp16 or 8 bits; fp32 on a GPU where FAISS has one."""

import functools
import threading
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

from indexer.stores.candidates import EXTRA_CANDIDATES, LocalStore, Scores
from indexer.stores.originals import Originals
from indexer.stores.precision import Storage
from model.errors import CarsearchError, IndexInvalid, missing_dependency
from model.types import Embeddings, Rows

# FAISS's stubs lack search parameters, callback writers and the result of `search`: the ignores below.
try:
    import faiss
except ModuleNotFoundError as problem:
    raise missing_dependency(problem) or problem from problem

from indexer.stores.codes import StoredRows, check_index, new_index  # needs faiss
from indexer.stores.exact import bitmap_selector, id_selector, set_threads

# Calls with at least this many query values (4 queries of 512) use matrix products. FAISS's default is 128,000 (250
# queries); below it every row is read again for each query, and 32 queries take four times as long.
faiss.cvar.distance_compute_blas_threshold = 2_048

RESCORED_CANDIDATES = 30
"""Candidates beyond those asked for, where the scores that choose them are of rounded rows."""

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


class FaissStore(LocalStore):
    """Unit rows in fp32, fp16 or 8 bits, of which a search compares every one.

    Scores are those of the stored rows; in 8 bits they are those of the originals, which lie beside the index.
    """

    def __init__(self, index: Any, storage: Storage = Storage.fp32, originals: Originals | None = None) -> None:
        refuse_two_distributions()
        self.storage = storage
        self.index = index
        self.extra = EXTRA_CANDIDATES if originals is None else RESCORED_CANDIDATES
        self._stored = StoredRows.of(index, storage)
        self._originals = originals
        self.tolerance = self._stored.tolerance
        self.error = self.tolerance + (0 if originals is None else self._stored.rounding)
        self._gpu_index: Any = None
        self._gpu_lock = threading.Lock()

    @classmethod
    def create(cls, embeddings: Embeddings, storage: Storage = Storage.fp32) -> "FaissStore":
        """A store of unit rows float32 (n, D); in 8 bits it needs one at least, and keeps the rows themselves too."""
        return cls(new_index(embeddings, storage), storage, Originals(embeddings) if storage.rescored else None)

    @classmethod
    def read(
        cls,
        path: Path,
        dim: int,
        count: int,
        storage: Storage = Storage.fp32,
        originals: Originals | None = None,
    ) -> "FaissStore":
        """Reads an index whose file has been verified; raises IndexInvalid when it is not what its manifest says."""
        _check_fourcc(path, storage)
        # No more memory than the manifest says, whatever a forged header claims.
        faiss.set_deserialization_vector_byte_limit(storage.row_bytes(dim) * count + HEADER_BYTES)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as problem:
            raise IndexInvalid(f"{path} is not an index that FAISS can read.") from problem
        check_index(index, storage, dim, count, path)
        store = cls(index, storage, originals)
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
        return self._stored.decoded(rows) if self._originals is None else self._originals.at(rows)

    def set_threads(self, threads: int | None) -> None:
        set_threads(threads)

    def selection(self, among: Rows | None) -> Any:
        if among is None:
            return None
        # The scalar quantizer asks for every row whether it is selected.
        selector = bitmap_selector(among, len(self)) if self.storage.lossy else id_selector(among)
        return faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]  # SWIG takes what the stubs do not

    def candidates(self, queries: Embeddings, fetch: int, selection: Any) -> tuple[Scores, Rows]:
        if selection is not None:
            # GPU indexes take no selector, so a filtered search runs on the CPU's copy.
            return self.index.search(queries, fetch, params=selection)  # type: ignore[no-any-return]  # FAISS has no types
        if self.storage.lossy or fetch > GPU_MAX_K or not gpus():  # on a GPU FAISS is used for fp32 only
            return self.index.search(queries, fetch)  # type: ignore[no-any-return]  # FAISS has no types
        with self._gpu_lock:  # a GPU index is not safe even for two readers
            if self._gpu_index is None:
                self._gpu_index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self.index)
            return self._gpu_index.search(queries, fetch)  # type: ignore[no-any-return]  # FAISS has no types

    def all_scores(self, query: Embeddings) -> Scores:
        _, found, order = self.index.range_search(query[None], -np.inf)  # not in the order of the rows
        scores = np.empty(len(self), np.float32)
        scores[order] = found
        return scores


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
