"""Dynamic batching: searches that wait together share a forward pass and a search of the index.

    work threads   decode a photo each and put it into a queue
    embed thread   hands whatever waits to the runtime, as one batch
    search thread  waits for a batch, searches all that is embedded by then in one call, and answers

A search that is alone in the server goes through in its work thread, with all cores.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from model.retrieval import Embeddings
from model.runtimes.base import Pending
from service.engine import Engine, Query, SearchResult
from service.observability.metrics import Metrics
from service.process import lower_priority

BATCHES_AHEAD = 4
"""Batches that the runtime may hold: it starts on the next one while one is fetched."""

MAX_SEARCHED = 32
"""Queries of one index search: more gain nothing, and the first of them would wait for the last."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A decoded photo; `reply` gets its result."""

    engine: Engine
    query: Query
    reply: "Future[SearchResult]"
    decode_ms: float
    decoded: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """Photos that the runtime embeds."""

    waiting: list[_Waiting]
    begun: float
    pending: Pending

    @property
    def engine(self) -> Engine:
        return self.waiting[0].engine


@dataclass(frozen=True, slots=True)
class _Embedded:
    """A photo with its embedding, float32 (D,)."""

    waiting: _Waiting
    embedding: Embeddings
    begun: float
    ended: float


class Batcher:
    """Embeds and searches for the work threads. `close` ends its two threads."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._changed = threading.Condition()
        self._decoded: deque[_Waiting] = deque()
        self._embedding: deque[_Batch] = deque()
        self._searches = 0
        self._closed = False
        for name, stage in (("embed", self._embed), ("search", self._search)):
            threading.Thread(target=stage, name=name, daemon=True).start()

    def search(self, engine: Engine, data: bytes, k: int, labels: Sequence[str], reply: "Future[SearchResult]") -> None:
        """Decodes a photo in the calling thread, and sees to it that `reply` is answered.

        A reply that is cancelled leaves the queue. Raises InvalidK, UnknownClass or ImageRejected.
        """
        with self._changed:
            self._searches += 1
        reply.add_done_callback(self._leave)
        started = time.perf_counter()
        query = engine.query(data, k, labels)
        decoded = time.perf_counter()
        decode_ms = (decoded - started) * 1000
        if self._searches > 1:
            with self._changed:
                self._decoded.append(_Waiting(engine, query, reply, decode_ms, decoded))
                self._changed.notify_all()
        elif reply.set_running_or_notify_cancel():
            reply.set_result(engine.answer(query).after({"queue": 0.0, "decode": decode_ms}))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _leave(self, _reply: "Future[SearchResult]") -> None:
        with self._changed:
            self._searches -= 1

    def _embed(self) -> None:
        """Hands batches to the runtime until the batcher is closed."""
        lower_priority()
        while not self._closed:
            batch = self._next_batch()
            begun = time.perf_counter()
            try:
                pending = batch[0].engine.submit([one.query for one in batch]) if batch else None
            except BaseException as problem:
                _answer_one_by_one(batch, problem)
                continue
            if pending is not None:
                with self._changed:
                    self._embedding.append(_Batch(batch, begun, pending))
                    self._changed.notify_all()

    def _next_batch(self) -> list[_Waiting]:
        """Waits for photos of one engine that the runtime has room for."""
        batch: list[_Waiting] = []
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._decoded and len(self._embedding) < BATCHES_AHEAD),
            )
            while self._decoded and len(batch) < self._decoded[0].engine.embedder.batch:
                if batch and self._decoded[0].engine is not batch[0].engine:
                    break
                waiting = self._decoded.popleft()
                if waiting.reply.set_running_or_notify_cancel():
                    batch.append(waiting)
        return batch

    def _search(self) -> None:
        """Answers what the runtime has embedded until the batcher is closed."""
        lower_priority()
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._embedding)
            embedded: list[_Embedded] = []
            while (batch := self._next_embedded(embedded)) is not None:
                embedded += _rows_of(batch)
            if embedded:
                self._answer(embedded)

    def _next_embedded(self, before: "list[_Embedded]") -> _Batch | None:
        """The oldest batch; with others `before` it only where it is of their engine and need not be waited for."""
        with self._changed:
            batch = self._embedding[0] if self._embedding else None
            if batch is None:
                return None
            if before and (
                batch.engine is not before[0].waiting.engine
                or len(before) + len(batch.waiting) > MAX_SEARCHED
                or not batch.pending.done()
            ):
                return None
            self._embedding.popleft()
            self._changed.notify_all()
            return batch

    def _answer(self, embedded: "list[_Embedded]") -> None:
        """Searches for photos of one engine in one call."""
        begun = time.perf_counter()
        waiting = [one.waiting for one in embedded]
        self._metrics.batch_photos.labels("search").observe(len(embedded))
        try:
            found = waiting[0].engine.nearest(
                np.stack([one.embedding for one in embedded]), [one.query for one in waiting]
            )
        except BaseException as problem:
            _answer_one_by_one(waiting, problem)
            return
        search_ms = (time.perf_counter() - begun) * 1000
        for one, hits in zip(embedded, found, strict=True):
            stages_ms = {
                "queue": (one.begun - one.waiting.decoded + begun - one.ended) * 1000,
                "decode": one.waiting.decode_ms,
                "forward": (one.ended - one.begun) * 1000,
                "search": search_ms,
            }
            one.waiting.reply.set_result(SearchResult(hits, stages_ms))


def _rows_of(batch: _Batch) -> list[_Embedded]:
    """Waits for a batch; nothing when it has failed as a whole."""
    try:
        rows = batch.pending.wait()
    except BaseException as problem:
        _answer_one_by_one(batch.waiting, problem)
        return []
    ended = time.perf_counter()
    return [_Embedded(one, row, batch.begun, ended) for one, row in zip(batch.waiting, rows, strict=True)]


def _answer_one_by_one(waiting: Sequence[_Waiting], problem: BaseException) -> None:
    """After a failure: photos that failed together are tried alone, so that only the bad one fails."""
    if len(waiting) == 1:
        waiting[0].reply.set_exception(problem)
        return
    for one in waiting:
        try:
            result = one.engine.answer(one.query)
        except BaseException as its_own:
            one.reply.set_exception(its_own)
            continue
        stages_ms = {"queue": (time.perf_counter() - one.decoded) * 1000, "decode": one.decode_ms}
        one.reply.set_result(result.after(stages_ms))
