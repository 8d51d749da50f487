"""Dynamic batching: searches that wait together share a forward pass and a search of the index.

    work threads   decode a photo each
    embed thread   hands whatever is decoded to the runtime, as one batch
    search thread  waits for a batch, searches all that is embedded by then in one call, and answers

A search that is alone in the server goes through in one work thread, with all cores. So does one by class, which may
read the whole index once more, and one by id, which needs no network.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from model.errors import StoreUnavailable
from model.runtimes.base import Pending
from model.types import Embeddings
from service.engine import Engine, Query, SearchResult
from service.observability.metrics import Metrics
from service.process import started_threads

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

    engine: Engine
    waiting: list[_Waiting]
    begun: float
    pending: Pending


class Batcher:
    """Searches with the help of `threads`, which decode, and of two threads of its own, which `close` ends."""

    def __init__(self, threads: ThreadPoolExecutor, metrics: Metrics) -> None:
        self._threads, self._metrics = threads, metrics
        self._searches = 0  # touched on the event loop only
        # Each stage is one thread, and the only one that takes from its queue.
        self._embed_thread, self._search_thread = started_threads("embed", 1), started_threads("search", 1)
        self._decoded: deque[_Waiting] = deque()
        self._embedding: deque[_Batch] = deque()
        self._room = threading.Semaphore(BATCHES_AHEAD)

    async def search(self, engine: Engine, ask: Callable[[], Query]) -> SearchResult:
        """What a query finds, with the time of each stage; `ask` decodes its photo, in a work thread.

        A search that is cancelled leaves the queue.
        """
        self._searches += 1
        try:
            reply: Future[SearchResult] = Future()
            self._threads.submit(self._decode, engine, ask, reply, self._searches == 1)
            return await asyncio.wrap_future(reply)
        finally:
            self._searches -= 1

    def _decode(self, engine: Engine, ask: Callable[[], Query], reply: "Future[SearchResult]", alone: bool) -> None:
        """Decodes in a work thread, and queues the photo or answers here; see the module."""
        if reply.cancelled():
            return
        try:
            started = time.perf_counter()
            query = ask()
            waiting = _Waiting(engine, query, (time.perf_counter() - started) * 1000, reply)
            if not alone and query.crop is not None and not query.by_class:
                self._decoded.append(waiting)
                self._embed_thread.submit(self._embed)
            elif reply.set_running_or_notify_cancel():
                result = _answer_alone(waiting)
                self._metrics.batch_photos.labels("search").observe(1)
                reply.set_result(result)
        except BaseException as problem:
            if not reply.cancelled():
                reply.set_exception(problem)

    def close(self) -> None:
        self._embed_thread.shutdown(wait=False, cancel_futures=True)
        self._search_thread.shutdown(wait=False, cancel_futures=True)

    def _embed(self) -> None:
        """Hands what is decoded to the runtime as one batch; a run for a photo that is in one already finds none."""
        self._room.acquire()
        batch = self._next_batch()
        try:
            if batch:
                engine, begun = batch[0].engine, time.perf_counter()
                pending = engine.submit([one.query for one in batch])
                self._embedding.append(_Batch(engine, batch, begun, pending))
                self._search_thread.submit(self._search)
                return
        except BaseException as problem:
            _answer_one_by_one(batch, problem)
        self._room.release()

    def _next_batch(self) -> list[_Waiting]:
        """Photos of one engine."""
        batch: list[_Waiting] = []
        while self._decoded and len(batch) < self._decoded[0].engine.embedder.batch:
            if batch and self._decoded[0].engine is not batch[0].engine:
                break
            waiting = self._decoded.popleft()
            if waiting.reply.set_running_or_notify_cancel():
                batch.append(waiting)
        return batch

    def _search(self) -> None:
        """Answers what the runtime has embedded; a run for a batch that was answered with others finds none."""
        embedded: list[tuple[_Batch, Embeddings]] = []
        while self._embedding and _goes_along(self._embedding[0], [batch for batch, _ in embedded]):
            batch = self._embedding.popleft()
            self._room.release()
            try:
                embedded.append((batch, batch.pending.wait()))
            except BaseException as problem:
                _answer_one_by_one(batch.waiting, problem)
        if embedded:
            self._answer(embedded)

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
        for one, its_own in zip(waiting, found, strict=True):
            stages_ms = {"decode": one.decode_ms, "forward": forward_ms, "search": search_ms}
            one.reply.set_result(SearchResult(its_own, stages_ms))


def _goes_along(batch: _Batch, before: list[_Batch]) -> bool:
    """The batch joins a search when it has the same engine, is embedded already, and keeps to MAX_SEARCHED photos."""
    if not before:
        return True
    photos = sum(len(one.waiting) for one in before) + len(batch.waiting)
    return batch.engine is before[0].engine and photos <= MAX_SEARCHED and batch.pending.done()


def _answer_alone(waiting: _Waiting) -> SearchResult:
    """The answer to one query, on all cores."""
    result = waiting.engine.answer(waiting.query)
    return SearchResult(result.found, {"decode": waiting.decode_ms, **result.stages_ms})


def _answer_one_by_one(waiting: Sequence[_Waiting], problem: BaseException) -> None:
    """After a failure: photos that failed together are tried alone, so that only the bad one fails.

    Where Milvus is gone, none of them is bad, and each would wait for it.
    """
    if len(waiting) == 1 or isinstance(problem, StoreUnavailable):
        for one in waiting:
            one.reply.set_exception(problem)
        return
    for one in waiting:
        try:
            one.reply.set_result(_answer_alone(one))
        except BaseException as its_own:
            one.reply.set_exception(its_own)
