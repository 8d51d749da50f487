"""Dynamic batching: searches that wait together share a forward pass and a search of the index.

    work threads   decode a photo each
    embed thread   hands whatever is decoded to the runtime, as one batch
    search thread  waits for a batch, searches all that is embedded by then in one call, and answers

A search that is alone in the server goes through in one work thread, with all cores.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from model.runtimes.base import Pending
from model.types import Embeddings
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
    decode_ms: float
    reply: "Future[SearchResult]"


@dataclass(frozen=True, slots=True)
class _Batch:
    """Photos of one engine that the runtime embeds."""

    waiting: list[_Waiting]
    begun: float
    pending: Pending

    @property
    def engine(self) -> Engine:
        return self.waiting[0].engine


class Batcher:
    """Searches with the help of `threads`, which decode, and of two threads of its own, which `close` ends."""

    def __init__(self, threads: ThreadPoolExecutor, metrics: Metrics) -> None:
        self._threads, self._metrics = threads, metrics
        self._searches = 0  # touched on the event loop only
        lock = threading.Lock()
        # One for each stage, so that a change wakes only the stage that waits for it.
        self._may_embed, self._may_search = threading.Condition(lock), threading.Condition(lock)
        self._decoded: deque[_Waiting] = deque()
        self._embedding: deque[_Batch] = deque()
        self._closed = False
        for name, stage in (("embed", self._embed), ("search", self._search)):
            threading.Thread(target=self._repeat, args=(stage,), name=name, daemon=True).start()

    async def search(self, engine: Engine, data: bytes, k: int, labels: Sequence[str] = ()) -> SearchResult:
        """As `engine.search`, with the time of each stage; a search that is cancelled leaves the queue."""
        self._searches += 1
        try:
            reply: Future[SearchResult] = Future()
            self._threads.submit(self._decode, engine, data, k, labels, reply, self._searches == 1)
            return await asyncio.wrap_future(reply)
        finally:
            self._searches -= 1

    def _decode(
        self, engine: Engine, data: bytes, k: int, labels: Sequence[str], reply: "Future[SearchResult]", alone: bool
    ) -> None:
        """Decodes in a work thread and queues the photo; a search that is alone is done here."""
        if reply.cancelled():
            return
        try:
            started = time.perf_counter()
            query = engine.query(data, k, labels)
            waiting = _Waiting(engine, query, (time.perf_counter() - started) * 1000, reply)
            if not alone:
                with self._may_embed:
                    self._decoded.append(waiting)
                    self._may_embed.notify()
            elif reply.set_running_or_notify_cancel():
                result = _answer_alone(waiting)
                self._metrics.batch_photos.labels("search").observe(1)
                reply.set_result(result)
        except BaseException as problem:
            if not reply.cancelled():
                reply.set_exception(problem)

    def close(self) -> None:
        with self._may_embed:
            self._closed = True
            self._may_embed.notify_all()
            self._may_search.notify_all()

    def _repeat(self, stage: Callable[[], None]) -> None:
        """Runs a stage until the batcher is closed; between two runs nothing holds an engine, which may be swapped."""
        lower_priority()
        while not self._closed:
            stage()

    def _embed(self) -> None:
        """Hands the next batch to the runtime."""
        if not (batch := self._next_batch()):
            return
        begun = time.perf_counter()
        try:
            pending = batch[0].engine.submit([one.query for one in batch])
        except BaseException as problem:
            _answer_one_by_one(batch, problem)
            return
        with self._may_search:
            self._embedding.append(_Batch(batch, begun, pending))
            self._may_search.notify()

    def _next_batch(self) -> list[_Waiting]:
        """Waits for photos of one engine that the runtime has room for."""
        batch: list[_Waiting] = []
        with self._may_embed:
            self._may_embed.wait_for(lambda: self._closed or (self._decoded and len(self._embedding) < BATCHES_AHEAD))
            while self._decoded and len(batch) < self._decoded[0].engine.embedder.batch:
                if batch and self._decoded[0].engine is not batch[0].engine:
                    break
                waiting = self._decoded.popleft()
                if waiting.reply.set_running_or_notify_cancel():
                    batch.append(waiting)
        return batch

    def _search(self) -> None:
        """Answers what the runtime has embedded."""
        with self._may_search:
            self._may_search.wait_for(lambda: self._closed or self._embedding)
        embedded = list[tuple[_Batch, Embeddings]]()
        while (batch := self._next_embedded([one for one, _ in embedded])) is not None:
            try:
                embedded.append((batch, batch.pending.wait()))
            except BaseException as problem:
                _answer_one_by_one(batch.waiting, problem)
        if embedded:
            self._answer(embedded)

    def _next_embedded(self, before: list[_Batch]) -> _Batch | None:
        """The oldest batch; with others `before` it only where it is of their engine and need not be waited for."""
        with self._may_embed:
            if not self._embedding:
                return None
            batch = self._embedding[0]
            if before:
                photos = sum(len(one.waiting) for one in before) + len(batch.waiting)
                if batch.engine is not before[0].engine or photos > MAX_SEARCHED or not batch.pending.done():
                    return None
            self._may_embed.notify()
            return self._embedding.popleft()

    def _answer(self, embedded: list[tuple[_Batch, Embeddings]]) -> None:
        """Searches for the photos of some batches of one engine in one call."""
        started = time.perf_counter()
        engine = embedded[0][0].engine
        waiting = [one for batch, _ in embedded for one in batch.waiting]
        try:
            found = engine.nearest(np.concatenate([rows for _, rows in embedded]), [one.query for one in waiting])
        except BaseException as problem:
            _answer_one_by_one(waiting, problem)
            return
        self._metrics.batch_photos.labels("search").observe(len(waiting))
        search_ms = (time.perf_counter() - started) * 1000
        forward_ms = (started - embedded[0][0].begun) * 1000
        for one, hits in zip(waiting, found, strict=True):
            stages_ms = {"decode": one.decode_ms, "forward": forward_ms, "search": search_ms}
            one.reply.set_result(SearchResult(hits, stages_ms))


def _answer_alone(waiting: _Waiting) -> SearchResult:
    """The answer to one query, on all cores."""
    result = waiting.engine.answer(waiting.query)
    return SearchResult(result.hits, {"decode": waiting.decode_ms, **result.stages_ms})


def _answer_one_by_one(waiting: Sequence[_Waiting], problem: BaseException) -> None:
    """After a failure: photos that failed together are tried alone, so that only the bad one fails."""
    if len(waiting) == 1:
        waiting[0].reply.set_exception(problem)
        return
    for one in waiting:
        try:
            one.reply.set_result(_answer_alone(one))
        except BaseException as its_own:
            one.reply.set_exception(its_own)
