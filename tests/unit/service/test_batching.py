"""Searches that arrive together share a batch: every one gets its own answer, and a bad one fails alone."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import EmbeddingInvalid, ImageUndecodable
from model.runtimes.base import Pending
from model.types import Embeddings
from service.batching import Batcher
from service.engine import Engine, Query, SearchResult
from service.http.schemas import Hit
from service.observability.metrics import Metrics

WORK_S = 60
BROKEN, POISON, UNSEARCHABLE = 250, 251, 252
"""A photo that cannot be decoded, one whose batch cannot be embedded, and one whose batch cannot be searched."""


@dataclass(frozen=True)
class Device:
    """What the batcher asks of an embedder: how much a runtime takes at once."""

    batch: int = 16
    in_flight: int = 1
    enough: int = 1


class Doubles:
    """An engine whose photo is one byte, and whose only hit names twice its value.

    It notes the batches that are embedded and those that are searched; nothing is embedded while its gate is closed.
    """

    def __init__(self, embedder: Device | None = None) -> None:
        self.embedder = embedder or Device()
        self.batches: list[list[int]] = []
        self.lone: list[bool] = []
        self.searched: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def query(self, data: bytes, k: int, labels: Sequence[str] = ()) -> Query:
        del labels
        if data[0] == BROKEN:
            raise ImageUndecodable("The photo is damaged.")
        return Query(np.full((1, 1, 3), data[0], np.uint8), k, None)

    def submit(self, queries: Sequence[Query], *, lone: bool = False) -> Pending:
        photos = [int(query.crop[0, 0, 0]) for query in queries]
        self.batches.append(photos)
        self.lone.append(lone)

        def wait() -> npt.NDArray[np.float32]:
            self.entered.release()
            assert self.gate.wait(WORK_S)
            if POISON in photos:
                raise EmbeddingInvalid("The network gave something odd.")
            return np.array([[photo] for photo in photos], np.float32)

        return Pending(wait, self.gate.is_set)

    def nearest(self, embeddings: Embeddings, queries: Sequence[Query]) -> list[list[Hit]]:
        photos = [int(photo) for photo in embeddings[:, 0]]
        self.searched.append(photos)
        if UNSEARCHABLE in photos:
            raise EmbeddingInvalid("The search failed.")
        return [
            [Hit(rank=rank, id=str(2 * photo), label="", score=1, image="") for rank in range(1, query.k + 1)]
            for photo, query in zip(photos, queries, strict=True)
        ]

    def answer(self, query: Query) -> SearchResult:
        (hits,) = self.nearest(self.submit([query]).wait(), [query])
        return SearchResult(hits, {"forward": 1.0, "search": 1.0})


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
    assert (engine.batches, engine.lone, engine.searched) == ([[3]], [True], [[3]])
    assert set(reply.result().stages_ms) == {"queue", "decode", "forward", "search"}


def test_what_arrives_while_the_runtime_has_no_room_is_the_next_batch() -> None:
    engine, metrics = Doubles(Device(batch=4)), Metrics()
    batcher = Batcher(metrics)
    replies = [Future[SearchResult]() for _ in range(6)]
    with blocked(batcher, engine):
        for photo, reply in enumerate(replies):
            start(batcher, engine, photo, 1, reply)
    assert [ids(reply) for reply in replies] == [[str(2 * photo)] for photo in range(len(replies))]
    assert engine.batches == [[0], [0, 1, 2, 3], [4, 5]]
    counted = metrics.registry.get_sample_value("carsearch_batch_photos_sum", {"work": "search"})
    assert counted == 1 + len(replies)


def test_few_photos_go_to_the_runtime_as_they_come_and_many_in_few_batches() -> None:
    engine, batcher = Doubles(Device(batch=4, in_flight=2, enough=3)), Batcher(Metrics())
    replies = [Future[SearchResult]() for _ in range(7)]
    with blocked(batcher, engine):
        for photo, reply in enumerate(replies):
            start(batcher, engine, photo, 1, reply)
        assert engine.batches == [[0], [0], [1]]  # three photos are enough, in however many batches
    assert engine.batches == [[0], [0], [1], [2, 3, 4, 5], [6]]
    assert [ids(reply) for reply in replies] == [[str(2 * photo)] for photo in range(len(replies))]


def test_what_has_been_embedded_meanwhile_is_searched_together() -> None:
    engine, batcher = Doubles(Device(in_flight=4)), Batcher(Metrics())
    replies = [Future[SearchResult]() for _ in range(3)]
    with blocked(batcher, engine):
        for photo, reply in enumerate(replies):
            start(batcher, engine, photo, 1, reply)
    assert (engine.batches, engine.searched) == ([[0], [0], [1], [2]], [[0, 0, 1, 2]])
    assert [ids(reply) for reply in replies] == [["0"], ["2"], ["4"]]


def test_nobody_is_alone_while_another_decodes() -> None:
    engine, batcher = Doubles(), Batcher(Metrics())
    decoding, go_on = threading.Event(), threading.Event()

    class Slow(Doubles):
        def query(self, data: bytes, k: int, labels: Sequence[str] = ()) -> Query:
            decoding.set()
            assert go_on.wait(WORK_S)
            return super().query(data, k, labels)

    replies = [Future[SearchResult]() for _ in range(2)]
    slow = threading.Thread(target=start, args=(batcher, Slow(), 1, 1, replies[0]))
    slow.start()
    try:
        assert decoding.wait(WORK_S)
        start(batcher, engine, 2, 1, replies[1])
        assert engine.lone == [False]
    finally:
        go_on.set()
        slow.join()
    assert [ids(reply) for reply in replies] == [["2"], ["4"]]


def test_a_search_that_is_cancelled_leaves_the_queue() -> None:
    engine, batcher = Doubles(), Batcher(Metrics())
    replies = [Future[SearchResult]() for _ in range(3)]
    with blocked(batcher, engine):
        for photo, reply in enumerate(replies):
            start(batcher, engine, photo, 1, reply)
        assert replies[1].cancel()
    assert engine.batches == [[0], [0, 2]]
    assert ids(replies[2]) == ["4"]


def test_the_next_engine_does_not_wait_behind_one_that_is_cancelled() -> None:
    old, new, batcher = Doubles(), Doubles(), Batcher(Metrics())
    given_up, reply = Future[SearchResult](), Future[SearchResult]()
    given_up.cancel()
    with batcher._lock:
        batcher._fed = True  # as while another thread hands over
    start(batcher, old, 1, 1, given_up)
    batcher._fed = False
    start(batcher, new, 2, 1, reply)
    assert ids(reply) == ["4"]
    assert (old.batches, new.batches) == ([], [[2]])


def test_photos_that_follow_each_other_fast_are_not_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, batcher = Doubles(), Batcher(Metrics())
    monkeypatch.setattr("service.batching.CALM_S", 3600.0)
    for photo in range(2):
        start(batcher, engine, photo, 1, Future())
    monkeypatch.setattr("service.batching.CALM_S", 0.0)
    start(batcher, engine, 2, 1, Future())
    assert engine.lone == [True, False, True]


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


def test_a_search_that_fails_for_all_is_tried_for_each() -> None:
    engine, batcher = Doubles(), Batcher(Metrics())
    replies = {photo: Future[SearchResult]() for photo in (1, UNSEARCHABLE, 2)}
    with blocked(batcher, engine):
        for photo, reply in replies.items():
            start(batcher, engine, photo, 1, reply)
    assert [ids(replies[photo]) for photo in (1, 2)] == [["2"], ["4"]]
    with pytest.raises(EmbeddingInvalid, match="The search failed"):
        replies[UNSEARCHABLE].result(WORK_S)


@given(
    photos=st.lists(
        st.tuples(
            st.integers(0, 100) | st.sampled_from([BROKEN, POISON, UNSEARCHABLE]), st.integers(1, 3), st.booleans()
        ),
        max_size=60,
    ),
    threads=st.integers(1, 4),
    device=st.builds(Device, st.integers(1, 8), st.integers(1, 3), st.integers(1, 5)),
)
@settings(deadline=None, max_examples=50)
def test_every_search_gets_its_own_answer(photos: list[tuple[int, int, bool]], threads: int, device: Device) -> None:
    engines, batcher = (Doubles(device), Doubles(device)), Batcher(Metrics())
    replies = [Future[SearchResult]() for _ in photos]
    with ThreadPoolExecutor(threads) as pool:
        for turn, ((photo, k, given_up), reply) in enumerate(zip(photos, replies, strict=True)):
            pool.submit(start, batcher, engines[turn // 3 % 2], photo, k, reply)
            if given_up:
                reply.cancel()  # before, while or after it is answered
    expected: dict[int, Callable[[Future[SearchResult]], bool]] = {
        BROKEN: lambda reply: isinstance(reply.exception(), ImageUndecodable),
        UNSEARCHABLE: lambda reply: isinstance(reply.exception(), EmbeddingInvalid),
        POISON: lambda reply: isinstance(reply.exception(), EmbeddingInvalid),
    }
    for (photo, k, _), reply in zip(photos, replies, strict=True):
        assert reply.done()
        if not reply.cancelled():
            right = expected.get(photo, lambda reply, photo=photo, k=k: ids(reply) == [str(2 * photo)] * k)
            assert right(reply)
