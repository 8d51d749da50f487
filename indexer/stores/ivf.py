"""FAISS's inverted lists of one-bit codes (RaBitQ): a search reads the lists near the query, then rescores candidates.

The vectors lie in lists by their nearest centroid. A code is the sign of each value's difference to the centroid, with
two numbers that make an unbiased estimate of its score (Gao and Long, SIGMOD 2024).

The file holds, one after the other and little-endian: centroids float32 (lists, D), the number of rows in each list
int64 (lists,), these rows int64 (N,) list by list, and their codes uint8 (N, bytes of a code). Its length follows from
the manifest, so a forged file makes nobody allocate more; FAISS's own reader believes what a file says of its lists.
"""

from pathlib import Path
from typing import Any, NamedTuple, Self

import faiss
import numpy as np

from indexer.stores.base import Neighbours
from indexer.stores.candidates import CandidateStore, Scores
from indexer.stores.exact import ExactStore, bitmap_selector, set_threads
from indexer.stores.originals import Originals
from indexer.stores.precision import Storage
from model.errors import IndexInvalid
from model.types import Embeddings, Rows

CANDIDATES = 100
CANDIDATES_A_ROW = 4
FEW_ROWS = 20_000
"""Up to so many rows that pass a filter are compared one by one."""

HNSW_FROM = 5_000_000
"""Rows from which the nearest centroids are found by a graph."""

HNSW_LINKS = 32
LEAST_EFFORT = 64
SAMPLED_A_LIST = 48
SAMPLED_BYTES = 512 << 20
"""Of vectors that centroids are found from, at most."""

ITERATIONS = 8
ROWS_PER_ADD = 65_536
ROWS_A_LIST = 8
"""Fewer in small galleries would leave k-means without rows."""


class Lists(NamedTuple):
    """How many lists there are, how many of them a search reads at least, and how many candidates it rescores."""

    nlist: int
    nprobe: int = 1
    candidates: int = CANDIDATES


def lists_for(count: int) -> int:
    """The power of two that is nearest to 4 sqrt(count) on a scale of powers, fewer in small galleries.

    >>> lists_for(1_000_000), lists_for(200_000), lists_for(100)
    (4096, 2048, 8)
    """
    wanted = round(np.log2(4 * np.sqrt(max(count, 1))))
    return int(2 ** min(wanted, int(np.log2(max(count // ROWS_A_LIST, 1)))))


class IvfStore(CandidateStore):
    """Unit rows in inverted lists; scores are those of the originals, which lie beside the index.

    A search may miss a row that lies in no list that it reads, or whose estimate is not among the candidates. Up to
    FEW_ROWS rows are searched exactly, and so are the best rows of groups. Nothing of a search changes the index: how
    many lists it reads goes with the call.
    """

    storage = Storage.ivf_rabitq
    tolerance = 0.0  # rows that are equal are in one list, with one code

    def __init__(self, index: Any, originals: Originals, lists: Lists) -> None:
        self.index = index
        self.lists = lists
        self._originals = originals
        self._exact = ExactStore(originals)
        self.error = self._exact.error

    @classmethod
    def create(cls, originals: Originals, held_out: Rows | None = None) -> Self:
        """Finds centroids by k-means on a sample and sorts unit rows float32 (n, D) into their lists.

        Rows that are held out, int64 (n,), are no part of the sample, unless a small gallery has too few others.
        """
        set_threads(None)
        matrix = originals.matrix
        count, dim = matrix.shape
        nlist = lists_for(count)
        most = min(SAMPLED_A_LIST * nlist, max(ROWS_A_LIST * nlist, SAMPLED_BYTES // (4 * dim)))
        sampled = np.random.default_rng(0).choice(count, min(count, most), replace=False)
        others = np.setdiff1d(sampled, [] if held_out is None else held_out)
        sampled = others if len(others) >= nlist * ROWS_A_LIST else np.sort(sampled)
        means: Any = faiss.Kmeans(
            dim, nlist, niter=ITERATIONS, spherical=True, seed=0, min_points_per_centroid=1,
            max_points_per_centroid=SAMPLED_A_LIST,
        )  # fmt: skip
        means.train(matrix[sampled])
        index = _empty(means.centroids.reshape(nlist, dim), count)
        for start in range(0, count, ROWS_PER_ADD):
            index.add(np.ascontiguousarray(matrix[start : start + ROWS_PER_ADD]))
        return cls(index, originals, Lists(nlist))

    @classmethod
    def read(cls, path: Path, originals: Originals, lists: Lists) -> Self:
        """Reads an index whose file has been verified; raises IndexInvalid when it is not what its manifest says."""
        count, dim = originals.matrix.shape
        try:
            size = path.stat().st_size
            data = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
        except OSError as problem:
            raise IndexInvalid(f"{path} cannot be read: {problem.strerror}.") from problem
        code_bytes = int(faiss.RaBitQuantizer(dim, faiss.METRIC_INNER_PRODUCT).code_size)
        ends = np.cumsum([4 * lists.nlist * dim, 8 * lists.nlist, 8 * count, code_bytes * count])
        if size != ends[-1]:
            raise IndexInvalid(f"{path} has not the length of {lists.nlist} lists with {count} rows.")
        parts = np.split(data, ends[:-1])
        centroids = parts[0].view("<f4").reshape(lists.nlist, dim)
        sizes, rows, codes = parts[1].view("<i8"), parts[2].view("<i8"), parts[3].reshape(count, code_bytes)
        there = np.zeros(count, np.bool_)
        there[rows[(rows >= 0) & (rows < count)]] = True
        if not (np.isfinite(centroids).all() and (sizes >= 0).all() and sizes.sum() == count and there.all()):
            raise IndexInvalid(f"{path} holds lists that are not of {count} rows.")
        index = _empty(centroids, count)
        for number, (start, length) in enumerate(zip(np.cumsum(sizes) - sizes, sizes, strict=True)):
            part = slice(start, start + length)
            pointers = [faiss.swig_ptr(np.ascontiguousarray(rows[part])), faiss.swig_ptr(codes[part].reshape(-1))]
            index.invlists.add_entries(number, int(length), *pointers)
        index.ntotal = count
        return cls(index, originals, lists)

    def with_nprobe(self, nprobe: int) -> "IvfStore":
        """The same lists, of which a search reads so many."""
        return IvfStore(self.index, self._originals, self.lists._replace(nprobe=nprobe))

    def write(self, path: Path) -> None:
        lists = [_list(self.index.invlists, number) for number in range(self.lists.nlist)]
        with path.open("wb") as file:
            file.write(self.index.quantizer.reconstruct_n(0, self.lists.nlist).astype("<f4", copy=False).data)
            file.write(np.array([len(rows) for rows, _ in lists], "<i8").data)
            for rows, _ in lists:
                file.write(rows.astype("<i8", copy=False).data)
            for _, codes in lists:
                file.write(codes.data)

    @property
    def dim(self) -> int:
        return int(self.index.d)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def vectors(self, rows: Rows) -> Embeddings:
        return self._originals.at(rows)

    def set_threads(self, threads: int | None) -> None:
        set_threads(threads)

    def fetched(self, k: int) -> int:
        return max(self.lists.candidates, CANDIDATES_A_ROW * k)

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        among: Rows | None = None,
        exclude_rows: Rows | None = None,
        threads: int | None = None,
    ) -> Neighbours:
        """The k nearest rows of each query; exact among few rows, see `VectorStore.search`."""
        search = self._exact.search if among is not None and len(among) <= FEW_ROWS else super().search
        return search(queries, k, among=among, exclude_rows=exclude_rows, threads=threads)

    def selection(self, among: Rows | None) -> tuple[Any, int]:
        return (None, len(self)) if among is None else (bitmap_selector(among, len(self)), len(among))

    def candidates(self, queries: Embeddings, fetch: int, selection: Any) -> tuple[Scores, Rows]:
        selector, available = selection
        # Where a filter leaves every fourth row, four times as many lists hold as many rows to choose from.
        wanted = self.lists.nprobe * max(1, fetch // self.lists.candidates) * len(self) // available
        nprobe = self.lists.nlist if fetch >= available else min(self.lists.nlist, wanted)
        options: dict[str, Any] = {"nprobe": nprobe}
        if isinstance(self.index.quantizer, faiss.IndexHNSW):
            effort = faiss.SearchParametersHNSW(efSearch=max(LEAST_EFFORT, 2 * nprobe))  # type: ignore[attr-defined]  # stubs lack it
            options["quantizer_params"] = effort
        if selector is not None:
            options["sel"] = selector
        params = faiss.SearchParametersIVF(**options)
        return self.index.search(queries, fetch, params=params)  # type: ignore[no-any-return]  # FAISS has no types

    def all_scores(self, query: Embeddings) -> Scores:
        return self._exact.all_scores(query)


def _empty(centroids: Embeddings, count: int) -> Any:
    """An index without rows that is made for so many."""
    nlist, dim = centroids.shape
    quantizer: Any = faiss.IndexFlatIP(dim)
    if count >= HNSW_FROM:
        quantizer = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        quantizer.hnsw.efSearch = LEAST_EFFORT  # for the rows that are added
        faiss.omp_set_num_threads(1)  # with one thread the graph is the same in every server
    quantizer.add(np.ascontiguousarray(centroids, np.float32))
    set_threads(None)
    index = faiss.IndexIVFRaBitQ(quantizer, dim, nlist, faiss.METRIC_INNER_PRODUCT)
    quantizer.this.disown()
    index.own_fields = True
    index.is_trained = True
    return index


def _list(lists: Any, number: int) -> tuple[Rows, Any]:
    """The rows int64 (n,) and codes uint8 (n * code bytes,) of one list, without a copy."""
    length = lists.list_size(number)
    if not length:
        return np.empty(0, np.int64), np.empty(0, np.uint8)
    rows: Rows = faiss.rev_swig_ptr(lists.get_ids(number), length)
    return rows, faiss.rev_swig_ptr(lists.get_codes(number), length * lists.code_size)
