"""Measures indexing and evaluation, start to ready, and memory: at rest, after long use and during a swap."""

import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.limit import Workload, core_ms, per_second
from bench.photos import write_distinct
from bench.procfs import peak_bytes, reset_peak, resident_bytes
from bench.serving import Running, ServerFailed, running_server
from bench.sizing import publish_made_up
from indexer.benchmark.evaluate import QUERIES_PER_CALL, RECALL_AT, evaluate
from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.dataset import read_items
from model.embedder import Embedder
from service.engine import Engine

CLIENTS = 32
SWAP_S = 120.0
SAMPLE_S = 0.005
SETTLE_S = 2.0
STRETCH_S = 20.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bulk:
    """Photos a second of indexing and of evaluation (medians), and the limits that their parts set."""

    photos: int
    indexing_per_s: float
    indexing_limit_per_s: float
    evaluation_per_s: float
    evaluation_limit_per_s: float


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the start of the process to ready (medians), with an empty and with a filled model cache."""

    empty_cache_s: float
    warm_cache_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes of a server process: when ready, at rest after some use, after long use, and during a swap."""

    ready_bytes: int
    rest_bytes: int
    later_bytes: int
    requests: int
    errors: int
    swap_peak_bytes: int
    index_bytes: int

    @property
    def growth(self) -> float:
        """Share by which the process grew in long use."""
        return self.later_bytes / self.rest_bytes - 1

    @property
    def swap_extra_bytes(self) -> int:
        """Memory at the peak of a swap beyond rest and the new index."""
        return self.swap_peak_bytes - self.later_bytes - self.index_bytes


def measure_bulk(embedder: Embedder, photos: Sequence[Path], count: int, rounds: int, part_s: float) -> Bulk:
    """Builds an index of `count` photos and evaluates them, `rounds` times, and measures the parts of both."""
    indexing: list[float] = []
    evaluation: list[float] = []
    indexing_limits: list[float] = []
    evaluation_limits: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gallery = write_distinct(photos, count, folder / "photos")
        items = read_items(gallery).items
        for number in range(rounds):
            index = IndexDirectory(folder / f"index{number}")
            started = time.perf_counter()
            build_index(gallery, index, embedder)
            indexing.append(count / (time.perf_counter() - started))
            started = time.perf_counter()
            evaluate(items, embedder)
            evaluation.append(count / (time.perf_counter() - started))
            work = Workload(Engine.load(index, runtime="openvino"), photos)
            parts = work.at_capacity(part_s, http_ms=0.0)
            depth = max(*RECALL_AT, max(work.engine.items.classes().values()) - 1)
            indexing_limits.append(per_second(parts.indexing_ms))
            evaluation_limits.append(per_second(parts.indexing_ms + _evaluation_search_ms(work, depth, part_s)))
    return Bulk(
        photos=count,
        indexing_per_s=statistics.median(indexing),
        indexing_limit_per_s=statistics.median(indexing_limits),
        evaluation_per_s=statistics.median(evaluation),
        evaluation_limit_per_s=statistics.median(evaluation_limits),
    )


def _evaluation_search_ms(work: Workload, depth: int, seconds: float) -> float:
    """Core time of one search as evaluation makes them: many in a call, as deep as the largest class."""
    queries = work.embeddings[:QUERIES_PER_CALL]
    return core_ms(lambda batch: work.engine.store.search(batch, depth), [queries], seconds, threads=1) / len(queries)


def measure_start(index: IndexDirectory, rounds: int, logs: Path) -> Start:
    """Starts a server `rounds` times with an empty model cache, and each time again with the cache it filled."""
    empty: list[float] = []
    warm: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for times in (empty, warm):
                with _server(index, logs, cache) as server:
                    times.append(server.ready_s)
    return Start(statistics.median(empty), statistics.median(warm))


def measure_memory(
    index: IndexDirectory, embedder: Embedder, photos: Sequence[Path], requests: int, logs: Path, say: Say
) -> Memory:
    """Sends one process `requests` searches, then swaps it to another index of the same model and size."""
    files = tuple(str(path) for path in photos)
    stretch_s = min(STRETCH_S, 1 + requests / 500)
    with tempfile.TemporaryDirectory() as cache:
        with _server(index, logs, cache):
            pass  # fills the cache
        with _server(index, logs, cache) as server:
            ready = resident_bytes(server.pid)
            _ask(server, files, stretch_s)
            rest = _at_rest(server)
            asked = errors = 0
            while asked < requests:
                asked_now, errors_now = _ask(server, files, stretch_s)
                asked, errors = asked + asked_now, errors + errors_now
                say(f"{asked} of {requests} requests, {resident_bytes(server.pid) / 1e6:.0f} MB")
            later = _at_rest(server)
            peak, size = _swap(index, embedder, server)
    return Memory(ready, rest, later, asked, errors, peak, size)


def _server(index: IndexDirectory, logs: Path, cache: str) -> AbstractContextManager[Running]:
    return running_server(index.root, log=logs / "resources.log", RUNTIME="openvino", CACHE_DIR=cache)


def _ask(server: Running, files: tuple[str, ...], seconds: float) -> tuple[int, int]:
    """Numbers of answers and of errors in some seconds; raises ServerFailed when nothing was answered."""
    asked = load.run(load.Order(server.port, CLIENTS, seconds, files, warm_up_s=0))
    if not asked.answered:
        raise ServerFailed("No search was answered; the server's log says why.")
    return asked.answered, asked.errors


def _at_rest(server: Running) -> int:
    time.sleep(SETTLE_S)
    return resident_bytes(server.pid)


def _swap(index: IndexDirectory, embedder: Embedder, server: Running) -> tuple[int, int]:
    """Peak memory while a server swaps to a new version of the same size, and the version's bytes on disk."""
    count = index.manifest(index.current()).count
    sees_peak = reset_peak(server.pid)
    publish_made_up(index, embedder, count)
    version = index.current()
    highest = 0
    deadline = time.monotonic() + SWAP_S
    settled = None
    while settled is None or time.monotonic() < settled:
        highest = max(highest, resident_bytes(server.pid))
        if settled is None and _served(server) == version:
            settled = time.monotonic() + SETTLE_S
        if settled is None and time.monotonic() > deadline:
            raise ServerFailed(f"The server did not swap within {SWAP_S:.0f} s; its log says why.")
        time.sleep(SAMPLE_S)
    if sees_peak:  # samples miss what lasts for less than their distance
        highest = max(highest, peak_bytes(server.pid))
    return highest, sum(path.stat().st_size for path in index.path_of(version).iterdir())


def _served(server: Running) -> str:
    """The version that a server answers from."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SWAP_S)
    try:
        connection.request("GET", "/info")
        served: str = json.loads(connection.getresponse().read())["versions"]["index"]
        return served
    finally:
        connection.close()
