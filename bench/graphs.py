"""HNSW graphs beside our storage, on the same vectors: those of hnswlib and of FAISS, which keep the vectors in fp32.

Both have M = 16 and ef_construction = 200, hnswlib's defaults. A search's ef is doubled until it finds as many nearest
rows as ours are asked to.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import faiss
import hnswlib
import numpy as np

from bench.procfs import anonymous_bytes
from bench.storage import MOST_REPEATS, QUERIES, ROWS_PER_WRITE, Cost, call_ms, photos_like
from indexer.benchmark.storage_recall import MIN_RECALL_OF_LISTS, recall_of, sampled
from indexer.stores.base import Neighbours
from indexer.stores.exact import set_threads
from indexer.stores.originals import Originals
from model.cores import available_cores
from model.types import Embeddings, Rows

LINKS, EF_CONSTRUCTION = 16, 200
LEAST_EF, MOST_EF = 16, 1024


class Graph(StrEnum):
    """Whose graph."""

    hnswlib = "hnswlib"
    faiss = "faiss-hnsw"


class GraphStore:
    """Unit rows in a graph, as a `VectorStore` without filters; scores are the graph's own."""

    def __init__(self, kind: Graph, index: Any, rows: int) -> None:
        self.kind, self.index, self.rows, self.ef = kind, index, rows, LEAST_EF

    @classmethod
    def create(cls, kind: Graph, originals: Originals) -> "GraphStore":
        """Adds unit rows float32 (n, D) on all cores."""
        rows, dim = originals.matrix.shape
        if kind is Graph.hnswlib:
            index: Any = hnswlib.Index("ip", dim)
            index.init_index(rows, ef_construction=EF_CONSTRUCTION, M=LINKS, random_seed=0)
            index.set_num_threads(available_cores())
        else:
            index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = EF_CONSTRUCTION
            set_threads(None)
        add = index.add_items if kind is Graph.hnswlib else index.add
        for start in range(0, rows, ROWS_PER_WRITE):
            add(np.ascontiguousarray(originals.matrix[start : start + ROWS_PER_WRITE]))
        return cls(kind, index, rows)

    @classmethod
    def read(cls, kind: Graph, path: Path, dim: int, rows: int) -> "GraphStore":
        """Reads what `write` wrote."""
        if kind is Graph.faiss:
            return cls(kind, faiss.read_index(str(path)), rows)
        index: Any = hnswlib.Index("ip", dim)
        index.load_index(str(path), max_elements=rows)
        return cls(kind, index, rows)

    def write(self, path: Path) -> None:
        if self.kind is Graph.hnswlib:
            self.index.save_index(str(path))
        else:
            faiss.write_index(self.index, str(path))

    def __len__(self) -> int:
        return self.rows

    def search(
        self,
        queries: Embeddings,
        k: int,
        *,
        among: Rows | None = None,
        exclude_rows: Rows | None = None,
        threads: int | None = None,
    ) -> Neighbours:
        """The k nearest rows that the graph finds; `among` is not supported."""
        assert among is None  # noqa: S101  # graphs are measured without filters
        fetch = k + (exclude_rows is not None)
        if self.kind is Graph.hnswlib:
            self.index.set_ef(max(self.ef, fetch))
            rows, distances = self.index.knn_query(queries, fetch, num_threads=threads or available_cores())
            rows, scores = rows.astype(np.int64), 1 - distances
        else:
            set_threads(threads)
            self.index.hnsw.efSearch = max(self.ef, fetch)
            scores, rows = self.index.search(queries, fetch)
        if exclude_rows is not None:  # its own row goes last, and is cut off
            order = np.argsort(rows == exclude_rows[:, None], axis=1, kind="stable")
            rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
        return Neighbours(rows[:, :k], scores[:, :k])


def measure(
    originals: Originals, path: Path, kinds: Sequence[Graph], queries: Sequence[int], seconds: float
) -> list[Cost]:
    """As `bench.storage.measure`, of graphs; the name of a storage says its ef."""
    started = time.perf_counter()
    sample = sampled(originals, QUERIES)
    truth_s = time.perf_counter() - started
    rows, dim = originals.matrix.shape
    costs = []
    for kind in kinds:
        started = time.perf_counter()
        store = GraphStore.create(kind, originals)
        recall = recall_of(store, originals, sample)
        while recall.share < MIN_RECALL_OF_LISTS and store.ef < MOST_EF:
            store.ef *= 2
            recall = recall_of(store, originals, sample)
        build_s, name = time.perf_counter() - started, f"{kind}, ef {store.ef}"
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "graph"
            store.write(written)
            ef = store.ef
            del store
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # its own, so that its memory is known
                times, memory = pool.submit(_served, kind, written, path, (rows, dim), ef, queries, seconds).result()
            size = written.stat().st_size
        told = (size, memory, build_s, truth_s, recall.share, None)
        costs += [Cost(rows, dim, name, number, ms, *told) for number, ms in zip(queries, times, strict=True)]
    return costs


def _served(
    kind: Graph, graph: Path, vectors: Path, shape: tuple[int, int], ef: int, queries: Sequence[int], seconds: float
) -> tuple[list[float], int]:
    """Reads a graph: milliseconds of a call with each number of queries, and anonymous bytes."""
    asked = photos_like(Originals.read(vectors, shape[1], shape[0]), MOST_REPEATS * max(1, max(queries) // 8))
    before = anonymous_bytes(os.getpid())
    store = GraphStore.read(kind, graph, shape[1], shape[0])
    store.ef = ef
    times = [call_ms(store, asked, number, seconds) for number in queries]
    return times, anonymous_bytes(os.getpid()) - before
