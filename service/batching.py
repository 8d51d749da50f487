"""Micro-batching: searches that arrive together share a forward pass and a search of the index.

Nobody waits for company, and there is no thread and no timer for it. Whoever has decoded a photo hands it to the
runtime, together with others that wait, as long as the runtime has room; one of those threads at a time takes what the
runtime has done, searches it and answers. A lone photo goes through at once; under load batches grow by themselves.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from model.embedder import Embedder
from model.runtimes.base import Pending
from model.types import Embeddings
from service.engine import Engine, Query, SearchResult
from service.observability.metrics import Metrics

MAX_ANSWERED = 32
"""Searched in one call: more gain nothing, and the first of them would wait for the last."""

CALM_S = 0.0015
"""After so long without a photo the next is taken for a lone one; under load photos follow each other faster."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    engine: Engine
    query: Query
    reply: "Future[SearchResult]"
    decode_ms: float
    since: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """What the runtime has."""

    waiting: list[_Waiting]
    begun: float
    pending: Pending

    @property
    def engine(self) -> Engine:
        return self.waiting[0].engine


@dataclass(frozen=True, slots=True)
class _Embedded:
    """A photo whose embedding is there, float32 (D,)."""

    waiting: _Waiting
    embedding: Embeddings
    begun: float
    ended: float


class Batcher:
    """Collects decoded photos and answers them in batches, in the threads that brought them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._embedding: deque[_Batch] = deque()
        self._decoding = 0  # threads that will bring a photo
        self._busy_until = -math.inf
        self._fed = self._led = False  # whether a thread is handing over, and whether one is answering

    def search(self, engine: Engine, data: bytes, k: int, labels: Sequence[str], reply: "Future[SearchResult]") -> None:
        """Decodes a photo and sees to it that `reply` is answered, by this thread or by the one that answers now.

        A reply that is cancelled leaves the queue. Raises InvalidK, UnknownClass or ImageRejected.
        """
        started = time.perf_counter()
        with self._lock:
            self._decoding += 1
        try:
            query = engine.query(data, k, labels)
            ready = time.perf_counter()
            waiting = _Waiting(engine, query, reply, (ready - started) * 1000, ready)
            with self._lock:
                self._queue.append(waiting)
        finally:
            with self._lock:
                self._decoding -= 1
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
            lone = not (self._decoding or self._embedding) and begun >= self._busy_until + CALM_S
            try:
                pending = waiting[0].engine.submit([one.query for one in waiting], lone=lone)
            except BaseException as problem:
                self._fail(waiting, problem)
                continue
            with self._lock:
                self._embedding.append(_Batch(waiting, begun, pending))

    def _take(self) -> list[_Waiting]:
        """What waits and the runtime has room for, for one engine; when there is nothing, this thread feeds no more."""
        batch: list[_Waiting] = []
        with self._lock:
            while self._queue:
                engine = self._queue[0].engine
                if batch and (engine is not batch[0].engine or len(batch) >= engine.embedder.batch):
                    break
                if not (batch or self._room(engine.embedder)):
                    break
                waiting = self._queue.popleft()
                if waiting.reply.set_running_or_notify_cancel():
                    batch.append(waiting)
            self._fed = bool(batch)
        return batch

    def _room(self, embedder: Embedder) -> bool:
        """A few photos in as many batches as they come, many in few batches."""
        photos = sum(len(batch.waiting) for batch in self._embedding)
        return len(self._embedding) < embedder.in_flight or photos < embedder.enough

    def _lead(self) -> None:
        """Answers until the runtime has nothing more, unless another thread is about it."""
        with self._lock:
            if self._led:
                return
            self._led = True
        while batch := self._oldest():
            embedded = self._wait(batch)
            # Those that have come to their end meanwhile share its search.
            while (
                (following := self._following())
                and following.engine is batch.engine
                and len(embedded) + len(following.waiting) <= MAX_ANSWERED
                and following.pending.done()
            ):
                embedded += self._wait(following)
            self._feed()
            if embedded:
                self._answer(batch.engine, embedded)

    def _oldest(self) -> _Batch | None:
        """The batch to be answered next; when there is none, this thread leads no more."""
        with self._lock:
            self._led = bool(self._embedding)
            return self._embedding[0] if self._led else None

    def _following(self) -> _Batch | None:
        with self._lock:
            return self._embedding[0] if self._embedding else None

    def _wait(self, batch: _Batch) -> list[_Embedded]:
        """Waits for the oldest batch, which makes room for another; nothing when it has failed as a whole."""
        try:
            rows = batch.pending.wait()
        except BaseException as problem:
            self._forget_oldest()
            self._fail(batch.waiting, problem)
            return []
        self._forget_oldest()
        ended = time.perf_counter()
        return [_Embedded(one, row, batch.begun, ended) for one, row in zip(batch.waiting, rows, strict=True)]

    def _forget_oldest(self) -> None:
        with self._lock:
            self._embedding.popleft()
        self._busy_until = time.perf_counter()

    def _answer(self, engine: Engine, embedded: list[_Embedded]) -> None:
        """Searches for all of them in one call."""
        begun = time.perf_counter()
        self._metrics.batch_photos.labels("search").observe(len(embedded))
        try:
            hits = engine.nearest(
                np.stack([one.embedding for one in embedded]), [one.waiting.query for one in embedded]
            )
        except BaseException as problem:
            self._fail([one.waiting for one in embedded], problem)
            return
        search_ms = (time.perf_counter() - begun) * 1000
        for one, found in zip(embedded, hits, strict=True):
            stages_ms = {
                "queue": (one.begun - one.waiting.since + begun - one.ended) * 1000,
                "decode": one.waiting.decode_ms,
                "forward": (one.ended - one.begun) * 1000,
                "search": search_ms,
            }
            one.waiting.reply.set_result(SearchResult(found, stages_ms))

    def _fail(self, waiting: list[_Waiting], problem: BaseException) -> None:
        """When several fail together, each is tried alone, so that only the bad one fails."""
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
