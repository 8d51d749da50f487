"""Searches that arrive together share a batch: every one gets its own answer, and a bad one fails alone."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import EmbeddingInvalid, ImageUndecodable
from service.batching import MAX_BATCH, Batcher
from service.engine import Engine, Query, SearchResult
from service.metrics import Metrics
from service.schemas import Hit

WORK_S = 60
BROKEN, POISON = 250, 251
"""A photo that cannot be decoded, and one that makes the whole batch fail it is in."""


class Doubles:
    """An engine whose photo is one byte, and whose only hit names twice its value; it notes its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def query(self, data: bytes, k: int, labels: Sequence[str] = ()) -> Query:
        del labels
        if data[0] == BROKEN:
            raise ImageUndecodable("The photo is damaged.")
        return Query(np.full((1, 1, 3), data[0], np.uint8), k, None)

    def answer(self, queries: Sequence[Query]) -> tuple[list[list[Hit]], dict[str, float]]:
        photos = [int(query.crop[0, 0, 0]) for query in queries]
        self.batches.append(photos)
        self.entered.release()
        assert self.gate.wait(WORK_S)
        if POISON in photos:
            raise EmbeddingInvalid("The network gave something odd.")
        hits = [
            [Hit(rank=rank, id=str(2 * photo), label="", score=1, image="") for rank in range(1, query.k + 1)]
            for photo, query in zip(photos, queries, strict=True)
        ]
        return hits, {"forward": 1.0, "search": 1.0}


def start(batcher: Batcher, engine: Doubles, photo: int, k: int, reply: "Future[SearchResult]") -> None:
    """What a thread of the pool does with a search."""
    try:
        batcher.search(cast(Engine, engine), bytes([photo]), k, (), reply)
    except ImageUndecodable as problem:
        reply.set_exception(problem)


@contextmanager
def blocked(batcher: Batcher, engine: Doubles) -> Iterator[None]:
    """A first search is being answered, and does not come to an end inside the block."""
    engine.gate.clear()
    first: Future[SearchResult] = Future()
    leader = threading.Thread(target=start, args=(batcher, engine, 0, 1, first))
    leader.start()
    try:
        assert engine.entered.acquire(timeout=WORK_S)
        yield
    finally:
        engine.gate.set()
        leader.join()
    assert first.result(WORK_S).hits[0].id == "0"


def ids(reply: "Future[SearchResult]") -> list[str]:
    return [hit.id for hit in reply.result(WORK_S).hits]


def test_a_lone_search_is_a_batch_of_one_at_once() -> None:
    engine, batcher, reply = Doubles(), Batcher(Metrics()), Future[SearchResult]()
    start(batcher, engine, 3, 2, reply)
    assert ids(reply) == ["6", "6"]
    assert engine.batches == [[3]]
    assert set(reply.result().stages_ms) == {"queue", "decode", "forward", "search"}


def test_what_arrives_while_a_batch_is_answered_is_the_next_batch() -> None:
    engine, metrics = Doubles(), Metrics()
    batcher = Batcher(metrics)
    replies = [Future[SearchResult]() for _ in range(MAX_BATCH + 2)]
    with blocked(batcher, engine):
        for photo, reply in enumerate(replies):
            start(batcher, engine, photo, 1, reply)
    assert [ids(reply) for reply in replies] == [[str(2 * photo)] for photo in range(len(replies))]
    assert engine.batches == [[0], list(range(MAX_BATCH)), [MAX_BATCH, MAX_BATCH + 1]]
    counted = metrics.registry.get_sample_value("carsearch_batch_photos_sum", {"work": "search"})
    assert counted == 1 + len(replies)


def test_a_search_that_is_cancelled_leaves_the_queue() -> None:
    engine, batcher = Doubles(), Batcher(Metrics())
    replies = [Future[SearchResult]() for _ in range(3)]
    with blocked(batcher, engine):
        for photo, reply in enumerate(replies):
            start(batcher, engine, photo, 1, reply)
        assert replies[1].cancel()
    assert engine.batches == [[0], [0, 2]]
    assert ids(replies[2]) == ["4"]


def test_one_that_makes_its_batch_fail_fails_alone() -> None:
    engine, batcher = Doubles(), Batcher(Metrics())
    replies = {photo: Future[SearchResult]() for photo in (1, POISON, 2)}
    with blocked(batcher, engine):
        for photo, reply in replies.items():
            start(batcher, engine, photo, 1, reply)
    assert [ids(replies[photo]) for photo in (1, 2)] == [["2"], ["4"]]
    with pytest.raises(EmbeddingInvalid):
        replies[POISON].result(WORK_S)
    assert engine.batches == [[0], [1, POISON, 2], [1], [POISON], [2]]


def test_a_batch_that_fails_answers_everybody_and_the_next_search_too() -> None:
    engine, batcher = Doubles(), Batcher(Metrics())
    replies = [Future[SearchResult]() for _ in range(3)]
    with blocked(batcher, engine):
        for reply in replies:
            start(batcher, engine, POISON, 1, reply)
    assert [type(reply.exception(WORK_S)) for reply in replies] == [EmbeddingInvalid] * 3
    after: Future[SearchResult] = Future()
    start(batcher, engine, 7, 1, after)
    assert ids(after) == ["14"]


def test_a_batch_is_of_one_engine() -> None:
    old, new, batcher = Doubles(), Doubles(), Batcher(Metrics())
    replies = [Future[SearchResult]() for _ in range(4)]
    with blocked(batcher, old):
        for photo, (engine, reply) in enumerate(zip((old, new, new, old), replies, strict=True)):
            start(batcher, engine, photo, 1, reply)
    assert (old.batches, new.batches) == ([[0], [0], [3]], [[1, 2]])
    assert [ids(reply) for reply in replies] == [["0"], ["2"], ["4"], ["6"]]


@given(
    photos=st.lists(
        st.tuples(st.integers(0, 100) | st.sampled_from([BROKEN, POISON]), st.integers(1, 3), st.booleans()),
        max_size=60,
    ),
    threads=st.integers(1, 4),
)
@settings(deadline=None, max_examples=50)
def test_every_search_gets_its_own_answer(photos: list[tuple[int, int, bool]], threads: int) -> None:
    engine, batcher = Doubles(), Batcher(Metrics())
    replies = [Future[SearchResult]() for _ in photos]
    with ThreadPoolExecutor(threads) as pool:
        for (photo, k, given_up), reply in zip(photos, replies, strict=True):
            pool.submit(start, batcher, engine, photo, k, reply)
            if given_up:
                reply.cancel()  # before, while or after it is answered
    expected: dict[int, Callable[[Future[SearchResult]], bool]] = {
        BROKEN: lambda reply: isinstance(reply.exception(), ImageUndecodable),
        POISON: lambda reply: isinstance(reply.exception(), EmbeddingInvalid),
    }
    for (photo, k, _), reply in zip(photos, replies, strict=True):
        assert reply.done()
        if not reply.cancelled():
            right = expected.get(photo, lambda reply, photo=photo, k=k: ids(reply) == [str(2 * photo)] * k)
            assert right(reply)
