"""The limit of throughput: the CPU time of each part of a search, measured alone, and their sum.

Core time is the CPU time of all threads that a part takes for one photo while it runs alone on all cores. Idle time is
not in it, so no arrangement of the same parts answers more than cores / (sum of core times) photos a second. For a lone
photo the latencies of the parts, one after the other, count instead.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from indexer.items import sha256_bytes
from model.dataset import read_file
from model.embedder import Embedder
from model.types import Embeddings
from service.engine import Engine

K = 5
QUERIES_A_CALL = 32
FORWARD_BATCHES = (1, 8, 32)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one photo in milliseconds: core time at capacity, or latency for a lone photo.

    `read` is reading a file and its sha256, `prepare` decode and fit, `http` the bare round trip with the load
    generator's share.
    """

    read_ms: float
    prepare_ms: float
    forward_ms: float
    search_ms: float
    http_ms: float

    @property
    def search_over_http_ms(self) -> float:
        """Sum for an upload that is searched."""
        return self.without_http_ms + self.http_ms

    @property
    def without_http_ms(self) -> float:
        """Sum for a photo in memory that is searched."""
        return self.prepare_ms + self.forward_ms + self.search_ms

    @property
    def indexing_ms(self) -> float:
        """Sum for a file that is indexed."""
        return self.read_ms + self.prepare_ms + self.forward_ms


def cores() -> int:
    """Cores that this process, and those it starts, may run on."""
    return len(os.sched_getaffinity(0))


def per_second(core_ms: float) -> float:
    """Photos a second when each takes so many milliseconds of a core."""
    return cores() * 1000 / core_ms


def core_ms(work: Callable[[Value], object], values: Sequence[Value], seconds: float, threads: int) -> float:
    """CPU time of the whole process for `work` on one value, in milliseconds, while so many threads do it."""
    work(values[0])
    started, used = time.perf_counter(), time.process_time()

    def repeat(first: int) -> int:
        done = 0
        while not done or time.perf_counter() - started < seconds:
            work(values[(first + done * threads) % len(values)])
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        count = sum(pool.map(repeat, range(threads)))
    return (time.process_time() - used) / count * 1000


def lone_ms(work: Callable[[Value], object], values: Sequence[Value], seconds: float) -> float:
    """Median time of `work` on one value after another, in milliseconds."""
    work(values[0])
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        started = time.perf_counter()
        work(values[len(times) % len(values)])
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


class Workload:
    """Photos ready to be put through each part: their bytes, crops and embeddings."""

    def __init__(self, engine: Engine, photos: Sequence[Path]) -> None:
        self.engine = engine
        self.paths = list(photos)
        self.photos = [path.read_bytes() for path in photos]
        self.crops = np.stack([engine.embedder.prepare(photo) for photo in self.photos])
        self.embeddings: Embeddings = engine.embedder.embed_crops(self.crops)

    @property
    def embedder(self) -> Embedder:
        return self.engine.embedder

    def at_capacity(self, seconds: float, http_ms: float) -> Parts:
        """Core times, each measured for some seconds; `http_ms` is the bare round trip's."""
        return Parts(
            read_ms=core_ms(lambda path: sha256_bytes(read_file(path)), self.paths, seconds, cores()),
            prepare_ms=core_ms(self.embedder.prepare, self.photos, seconds, cores()),
            forward_ms=self._forward_ms(seconds),
            search_ms=search_ms(self.engine, self.embeddings, seconds),
            http_ms=http_ms,
        )

    def alone(self, seconds: float, http_ms: float) -> Parts:
        """Latencies of a lone photo, each measured for some seconds; `http_ms` is the bare round trip's."""
        return Parts(
            read_ms=lone_ms(lambda path: sha256_bytes(read_file(path)), self.paths, seconds),
            prepare_ms=lone_ms(self.embedder.prepare, self.photos, seconds),
            forward_ms=lone_ms(lambda crop: self.embedder.embed_crops(crop[None]), list(self.crops), seconds),
            search_ms=lone_ms(
                lambda embedding: self.engine.store.search(embedding[None], K, threads=1),
                list(self.embeddings),
                seconds,
            ),
            http_ms=http_ms,
        )

    def in_one_loop_ms(self, seconds: float) -> float:
        """Core time of decode, fit, forward and search one after the other, in one loop a core, without a server.

        It exceeds the sum of the parts by what they cost each other in the caches.
        """

        def answer(photo: bytes) -> None:
            crop = self.embedder.prepare(photo)
            self.engine.store.search(self.embedder.submit_crops(crop[None]).wait(), K, threads=1)

        return core_ms(answer, self.photos, seconds, cores())

    def _forward_ms(self, seconds: float) -> float:
        """Core time of a photo at the best batch size."""
        share_s = seconds / len(FORWARD_BATCHES)
        repeated = np.resize(self.crops, (max(FORWARD_BATCHES), *self.crops.shape[1:]))
        return min(
            core_ms(self.embedder.embed_crops, [repeated[:size]], share_s, threads=1) / size for size in FORWARD_BATCHES
        )


def search_ms(engine: Engine, embeddings: Embeddings, seconds: float) -> float:
    """Core time of one search among many in a call, in milliseconds."""
    queries = np.resize(embeddings, (QUERIES_A_CALL, embeddings.shape[1]))
    return (
        core_ms(lambda batch: engine.store.search(batch, K, threads=1), [queries], seconds, threads=1) / QUERIES_A_CALL
    )
