"""The storage formats of vectors compared: milliseconds a search, bytes, and recall@1 against fp32.

Vectors come from an index or are random. Random ones take as long to search, but have no near neighbours, so their
recall says nothing and is left out.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.table import Table

from indexer.benchmark.storage_recall import measured_recall
from indexer.build import embeddings_of
from indexer.stores.faiss import FaissStore
from indexer.stores.precision import Storage
from indexer.versions import IndexDirectory
from model.types import Embeddings

K = 5
QUERIES = 4_096
MOST_REPEATS = 51
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Cost:
    """The median time of a call with `queries` queries, the bytes of the index, and recall@1 against fp32."""

    rows: int
    storage: str
    queries: int
    call_ms: float
    index_bytes: int
    recall_at_1: float | None


def embeddings_of_index(index: IndexDirectory) -> Embeddings:
    """The unrounded vectors of the current version: float32 (n, D)."""
    manifest = index.verify(index.current())
    return embeddings_of(index.path_of(manifest.id), manifest)(np.arange(manifest.count))


def made_up(rows: int, dim: int) -> Embeddings:
    """Random unit rows: float32 (n, D)."""
    vectors = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measure(embeddings: Embeddings, queries: Sequence[int], seconds: float, recall: bool) -> list[Cost]:
    """Measures each storage with each number of queries a call, on one thread, about `seconds` each."""
    asked = _photos_like(embeddings, max(queries))
    costs = []
    for storage in Storage:
        store = FaissStore.create(embeddings, storage)
        share = measured_recall(embeddings, store, QUERIES).share if recall else None
        size = _file_bytes(store)
        for number in queries:
            call_ms = _call_ms(store, asked[:number], seconds)
            costs.append(Cost(len(embeddings), str(storage), number, call_ms, size, share))
    return costs


def _photos_like(embeddings: Embeddings, count: int) -> Embeddings:
    """Queries near some rows and equal to none: float32 (count, D), unit rows."""
    random = np.random.default_rng(1)
    rows = embeddings[random.integers(0, len(embeddings), count)]
    moved = rows + random.standard_normal(rows.shape) * 0.3 / np.sqrt(rows.shape[1])
    queries: Embeddings = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return queries


def _call_ms(store: FaissStore, queries: Embeddings, seconds: float) -> float:
    store.search(queries, K, threads=1)  # the first call brings the rows into memory
    took: list[float] = []
    deadline = time.perf_counter() + seconds
    while not took or (time.perf_counter() < deadline and len(took) < MOST_REPEATS):
        started = time.perf_counter()
        store.search(queries, K, threads=1)
        took.append(time.perf_counter() - started)
    return median(took) * 1000


def _file_bytes(store: FaissStore) -> int:
    """Bytes of the index in a file; in memory it takes as much."""
    with tempfile.TemporaryDirectory() as folder:
        store.write(Path(folder) / "index.faiss")
        return (Path(folder) / "index.faiss").stat().st_size


def table_of(costs: Sequence[Cost]) -> Table:
    """A line for each storage and size, a column for each number of queries a call."""
    numbers = sorted({cost.queries for cost in costs})
    calls = [f"{number} {'query' if number == 1 else 'queries'}" for number in numbers]
    table = Table("vectors", "storage", "index", "recall@1", *calls)
    for rows, storage in dict.fromkeys((cost.rows, cost.storage) for cost in costs):
        line = {cost.queries: cost for cost in costs if (cost.rows, cost.storage) == (rows, storage)}
        first = next(iter(line.values()))
        recall = "" if first.recall_at_1 is None else f"{first.recall_at_1:.5f}"
        times = [f"{line[number].call_ms:.2f} ms" if number in line else "" for number in numbers]
        table.add_row(f"{rows:,}", storage, f"{first.index_bytes / MIB:.1f} MiB", recall, *times)
    return table
