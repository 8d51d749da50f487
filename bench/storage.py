"""The storage formats of vectors compared: milliseconds a search, memory, seconds to build, and recall@1 against fp32.

Vectors come from an index or are made up: centres of classes and photos around them, as near to one another as those of
real photos (the nearest has a cosine of 0.78 in the median, most of the variance is in few directions).
"""

import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from rich.table import Table

from bench.procfs import anonymous_bytes
from indexer.benchmark.storage_recall import sampled
from indexer.build import embeddings_of
from indexer.recipes import create_measured
from indexer.stores.base import VectorStore
from indexer.stores.faiss import FaissStore
from indexer.stores.ivf import IvfStore, Lists
from indexer.stores.originals import Originals
from indexer.stores.precision import Storage
from indexer.versions import IndexDirectory
from model.types import Embeddings

K = 5
QUERIES = 1_024
MOST_REPEATS = 201
PHOTOS_A_CLASS = 40
WITHIN_CLASS = 0.7
"""The spread of the photos of a class, in that of the classes' centres."""

ROWS_PER_WRITE = 65_536
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Cost:
    """The median time of a call with `queries` queries on one thread, and what the storage takes and finds.

    `anonymous_bytes` is the memory of a process that read the index and searched; pages of a mapped file are not in it.
    `build_s` takes in the measuring of recall@1 against fp32, but not the exact search that it is compared with, which
    took `truth_s`. `nprobe` is the number of lists that a search reads.
    """

    rows: int
    dim: int
    storage: str
    queries: int
    call_ms: float
    index_bytes: int
    anonymous_bytes: int
    build_s: float
    truth_s: float
    recall_at_1: float
    nprobe: int | None


def write_vectors_of(index: IndexDirectory, path: Path) -> Originals:
    """The unrounded vectors of the current version, in a file of their own."""
    manifest = index.verify(index.current())
    vectors = embeddings_of(index.path_of(manifest.id), manifest)
    with path.open("wb") as file:
        for start in range(0, manifest.count, ROWS_PER_WRITE):
            rows = np.arange(start, min(start + ROWS_PER_WRITE, manifest.count))
            file.write(np.ascontiguousarray(vectors(rows)).data)
    return Originals.read(path, manifest.dim, manifest.count)


def write_made_up(path: Path, rows: int, dim: int) -> Originals:
    """Made-up unit rows float32 (n, D), in a file."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(1, rows // PHOTOS_A_CLASS), dim), dtype=np.float32)
    directions = random.standard_normal((dim, dim), dtype=np.float32) / np.sqrt(np.arange(1, dim + 1)[:, None])
    with path.open("wb") as file:
        for start in range(0, rows, ROWS_PER_WRITE):
            count = min(ROWS_PER_WRITE, rows - start)
            photos = WITHIN_CLASS * random.standard_normal((count, dim), dtype=np.float32)
            photos = (photos + centres[random.integers(0, len(centres), count)]) @ directions.astype(np.float32)
            photos /= np.linalg.norm(photos, axis=1, keepdims=True)
            file.write(photos.data)
    return Originals.read(path, dim, rows)


def measure(
    originals: Originals, path: Path, storages: Sequence[Storage], queries: Sequence[int], seconds: float
) -> list[Cost]:
    """Measures each storage of the vectors in a file with each number of queries a call, about `seconds` each."""
    started = time.perf_counter()
    sample = sampled(originals, QUERIES)
    truth_s = time.perf_counter() - started
    costs = []
    rows, dim = originals.matrix.shape
    for storage in storages:
        started = time.perf_counter()
        store, recall = create_measured(originals, storage, sample)
        build_s = time.perf_counter() - started
        lists = store.lists if isinstance(store, IvfStore) else None
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "index.faiss"
            store.write(written)
            del store
            # Each in a process of its own, so that its memory is known.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                times, memory = pool.submit(
                    _served, written, path, (rows, dim), storage, lists, queries, seconds
                ).result()
            size = written.stat().st_size
        nprobe = None if lists is None else lists.nprobe
        told = (size, memory, build_s, truth_s, recall.share, nprobe)
        costs += [Cost(rows, dim, str(storage), number, ms, *told) for number, ms in zip(queries, times, strict=True)]
    return costs


def _served(
    index: Path,
    vectors: Path,
    shape: tuple[int, int],
    storage: Storage,
    lists: Lists | None,
    queries: Sequence[int],
    seconds: float,
) -> tuple[list[float], int]:
    """Reads a store as a server does: milliseconds of a call with each number of queries, and anonymous bytes."""
    before = anonymous_bytes(os.getpid())
    rows, dim = shape
    originals = Originals.read(vectors, dim, rows)
    store: FaissStore | IvfStore
    if lists is not None:
        store = IvfStore.read(index, originals, lists)
    else:
        store = FaissStore.read(index, dim, rows, storage, originals if storage.rescored else None)
    asked = photos_like(originals, MOST_REPEATS * max(1, max(queries) // 8))
    times = [call_ms(store, asked, number, seconds) for number in queries]
    return times, anonymous_bytes(os.getpid()) - before - asked.nbytes


def photos_like(originals: Originals, count: int) -> Embeddings:
    """Queries near some rows and equal to none: float32 (count, D), unit rows."""
    random = np.random.default_rng(1)
    rows = originals.at(random.integers(0, len(originals), count))
    moved = rows + random.standard_normal(rows.shape, dtype=np.float32) * np.float32(0.3 / np.sqrt(rows.shape[1]))
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return moved


def call_ms(store: VectorStore, asked: Embeddings, number: int, seconds: float) -> float:
    """The median of calls with other queries each time."""
    store.search(asked[:number], K, threads=1)  # the first call brings the rows into memory
    took: list[float] = []
    deadline = time.perf_counter() + seconds
    while not took or (time.perf_counter() < deadline and len(took) < MOST_REPEATS):
        queries = asked[(np.arange(number) + number * len(took)) % len(asked)]
        started = time.perf_counter()
        store.search(queries, K, threads=1)
        took.append(time.perf_counter() - started)
    return median(took) * 1000


def table_of(costs: Sequence[Cost]) -> Table:
    """A line for each storage and size, a column for each number of queries a call."""
    numbers = sorted({cost.queries for cost in costs})
    calls = [f"{number} {'query' if number == 1 else 'queries'}" for number in numbers]
    table = Table("vectors", "storage", "index", "memory", "built in", "recall@1", "lists read", *calls)
    for rows, dim, storage in dict.fromkeys((cost.rows, cost.dim, cost.storage) for cost in costs):
        line = {cost.queries: cost for cost in costs if (cost.rows, cost.dim, cost.storage) == (rows, dim, storage)}
        first = next(iter(line.values()))
        times = [f"{line[number].call_ms:.2f} ms" if number in line else "" for number in numbers]
        sizes = [f"{size / MIB:.1f} MiB" for size in (first.index_bytes, first.anonymous_bytes)]
        found = [f"{first.build_s:.0f} s", f"{first.recall_at_1:.5f}", f"{first.nprobe or ''}"]
        table.add_row(f"{rows:,} x {dim}", storage, *sizes, *found, *times)
    return table
