"""Micro-batching: searches that arrive together share a forward pass and a search of the index.

Nobody waits for company, and there is no thread and no timer for it. Whoever has decoded a photo hands it to the
runtime, together with others that wait, as long as the runtime has room; one of those threads at a time takes what the
runtime has done, searches it and answers. A lone photo is a batch of one at once; under load batches grow by themselves.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from model.metrics import Embeddings
from service.engine import Engine, Query, SearchResult
from service.metrics import Metrics

MAX_BATCH = 16
"""Photos in one batch: more gain little, and the first of them would wait for the last."""

IN_FLIGHT = 2
"""Batches that a runtime has: it goes on with the second while the first is searched and answered."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    engine: Engine
    query: Query
    reply: "Future[SearchResult]"
    decode_ms: float
    since: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """What the runtime has; `wait` gives the embeddings."""

    waiting: list[_Waiting]
    begun: float
    wait: Callable[[], Embeddings]


class Batcher:
    """Collects decoded photos and answers them in batches, in the threads that brought them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._embedding: deque[_Batch] = deque()
        self._fed = self._led = False  # whether a thread is handing over, and whether one is answering

    def search(self, engine: Engine, data: bytes, k: int, labels: Sequence[str], reply: "Future[SearchResult]") -> None:
        """Decodes a photo and sees to it that `reply` is answered, by this thread or by the one that answers now.

        A reply that is cancelled leaves the queue. Raises InvalidK, UnknownClass or ImageRejected.
        """
        started = time.perf_counter()
        query = engine.query(data, k, labels)
        ready = time.perf_counter()
        with self._lock:
            self._queue.append(_Waiting(engine, query, reply, (ready - started) * 1000, ready))
        self._feed()
        self._lead()

    def _feed(self) -> None:
        """Hands what waits to the runtime as long as it has room, unless another thread is about it."""
        with self._lock:
            if self._fed:
                return
            self._fed = True
        while waiting := self._take():
            begun = time.perf_counter()
            self._metrics.batch_photos.labels("search").observe(len(waiting))
            try:
                wait = waiting[0].engine.submit([one.query for one in waiting])
            except BaseException as problem:
                self._fail(waiting, problem)
                continue
            with self._lock:
                self._embedding.append(_Batch(waiting, begun, wait))

    def _take(self) -> list[_Waiting]:
        """What waits, as far as it is for one engine and there is room; when there is nothing, this thread feeds no more."""
        batch: list[_Waiting] = []
        with self._lock:
            room = MAX_BATCH if len(self._embedding) < IN_FLIGHT else 0
            while self._queue and len(batch) < room:
                if batch and self._queue[0].engine is not batch[0].engine:
                    break
                waiting = self._queue.popleft()
                if waiting.reply.set_running_or_notify_cancel():
                    batch.append(waiting)
            self._fed = bool(batch)
        return batch

    def _lead(self) -> None:
        """Answers until the runtime has nothing more, unless another thread is about it."""
        with self._lock:
            if self._led:
                return
            self._led = True
        while batch := self._oldest():
            self._answer(batch)

    def _oldest(self) -> _Batch | None:
        """The batch to be answered next; when there is none, this thread leads no more."""
        with self._lock:
            self._led = bool(self._embedding)
            return self._embedding[0] if self._led else None

    def _answer(self, batch: _Batch) -> None:
        """Waits for a batch, lets the next one in, and answers everyone of it."""
        engine, waiting = batch.waiting[0].engine, batch.waiting
        try:
            try:
                embeddings = batch.wait()
            finally:
                with self._lock:
                    self._embedding.popleft()
                self._feed()
            embedded = time.perf_counter()
            hits = engine.nearest(embeddings, [one.query for one in waiting])
        except BaseException as problem:
            self._fail(waiting, problem)
            return
        forward_ms, search_ms = (embedded - batch.begun) * 1000, (time.perf_counter() - embedded) * 1000
        for one, found in zip(waiting, hits, strict=True):
            queue_ms = (batch.begun - one.since) * 1000
            stages_ms = {"queue": queue_ms, "decode": one.decode_ms, "forward": forward_ms, "search": search_ms}
            one.reply.set_result(SearchResult(found, stages_ms))

    def _fail(self, waiting: list[_Waiting], problem: BaseException) -> None:
        """When a batch fails as a whole, each of it is tried alone, so that only the bad one fails."""
        if len(waiting) == 1:
            waiting[0].reply.set_exception(problem)
            return
        for one in waiting:
            try:
                result = one.engine.answer(one.query)
            except BaseException as its_own:
                one.reply.set_exception(its_own)
                continue
            stages_ms = {"queue": (time.perf_counter() - one.since) * 1000, "decode": one.decode_ms}
            one.reply.set_result(result.after(stages_ms))
