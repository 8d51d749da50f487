"""Micro-batching: searches that arrive together share a forward pass and a search of the index.

Nobody waits for company, and there is no thread and no timer for it: whoever has decoded a photo and finds nobody
embedding embeds what is there, and then what was decoded meanwhile, until nothing is left. A lone photo is a batch of
one at once; under load batches grow by themselves.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from service.engine import Engine, Query, SearchResult
from service.metrics import Metrics

MAX_BATCH = 32
"""Photos in one batch: more gain nothing, and the first of them would wait for the last."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    engine: Engine
    query: Query
    reply: "Future[SearchResult]"
    decode_ms: float
    since: float


class Batcher:
    """Collects decoded photos and answers them in batches, each in one thread of those that brought them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._led = False  # whether a thread is answering

    def search(self, engine: Engine, data: bytes, k: int, labels: Sequence[str], reply: "Future[SearchResult]") -> None:
        """Decodes a photo and sees to it that `reply` is answered, by this thread or by the one that answers now.

        A reply that is cancelled leaves the queue. Raises InvalidK, UnknownClass or ImageRejected.
        """
        started = time.perf_counter()
        query = engine.query(data, k, labels)
        ready = time.perf_counter()
        with self._lock:
            self._queue.append(_Waiting(engine, query, reply, (ready - started) * 1000, ready))
            if self._led:
                return
            self._led = True
        while batch := self._take():
            self._answer(batch)

    def _take(self) -> list[_Waiting]:
        """What waits, as far as it is for one engine; when there is nothing, this thread leads no more."""
        batch: list[_Waiting] = []
        with self._lock:
            while self._queue and len(batch) < MAX_BATCH:
                if batch and self._queue[0].engine is not batch[0].engine:
                    break
                waiting = self._queue.popleft()
                if waiting.reply.set_running_or_notify_cancel():
                    batch.append(waiting)
            self._led = bool(batch)
        return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        """Answers every one of a batch; when it fails as a whole, each alone, so that only the bad one fails."""
        begun = time.perf_counter()
        self._metrics.batch_photos.labels("search").observe(len(batch))
        try:
            hits, shared_ms = batch[0].engine.answer([waiting.query for waiting in batch])
        except BaseException as problem:
            if len(batch) == 1:
                batch[0].reply.set_exception(problem)
                return
            for waiting in batch:
                self._answer([waiting])
            return
        for waiting, found in zip(batch, hits, strict=True):
            queue_ms = (begun - waiting.since) * 1000
            waiting.reply.set_result(SearchResult(found, {"queue": queue_ms, "decode": waiting.decode_ms, **shared_ms}))
