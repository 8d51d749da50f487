"""Dynamic batching: searches share a batch, every one gets its own answer, and a bad one fails alone.

Case 087 of the catalogue: answers are never crossed.
"""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.versions import IndexDirectory
from model.errors import CarsearchError, EmbeddingInvalid, ImageUndecodable
from model.runtimes.base import Pending
from model.types import Embeddings
from service.batching import Batcher
from service.engine import Engine, Found, Hit, Query, SearchResult
from service.observability.metrics import Metrics
from tests.support.calls import eventually
from tests.support.photos import KOREAN, car_photo

WORK_S = 60
BROKEN, POISON, UNSEARCHABLE = 250, 251, 252
"""A photo that cannot be decoded, one whose batch cannot be embedded, and one whose batch cannot be searched."""


@dataclass(frozen=True)
class Device:
    """What the batcher asks of an embedder: how many photos a runtime takes at once."""

    batch: int = 16


class Gate:
    """Holds up whoever comes through while it is closed."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)

    def pass_through(self) -> None:
        self.entered.release()
        assert self.open.wait(WORK_S)

    async def has_been_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=WORK_S)


class Doubles:
    """An engine whose photo is one byte, and whose only hit names twice its value.

    It notes the batches that are embedded and those that are searched, and has a gate for each stage.
    """

    def __init__(self, batch: int = 16) -> None:
        self.embedder = Device(batch)
        self.batches: list[list[int]] = []
        self.lone: list[int] = []
        self.searched: list[list[int]] = []
        self.decoding, self.submitting, self.computing = Gate(), Gate(), Gate()

    def query(self, data: bytes, k: int, labels: Sequence[str] = (), where: str | None = None) -> Query:
        del labels, where
        self.decoding.pass_through()
        if data[0] == BROKEN:
            raise ImageUndecodable("The photo is damaged.")
        return Query(np.full((1, 1, 3), data[0], np.uint8), k, None)

    def submit(self, queries: Sequence[Query], *, lone: bool = False) -> Pending:
        photos = [int(query.crop[0, 0, 0]) for query in queries if query.crop is not None]
        self.batches.append(photos)
        self.lone += photos * lone
        self.submitting.pass_through()

        def wait() -> npt.NDArray[np.float32]:
            self.computing.pass_through()
            if POISON in photos:
                raise EmbeddingInvalid("The network gave something odd.")
            return np.array([[photo] for photo in photos], np.float32)

        return Pending(wait, self.computing.open.is_set)

    def nearest(self, embeddings: Embeddings, queries: Sequence[Query]) -> list[Found]:
        photos = [int(photo) for photo in embeddings[:, 0]]
        self.searched.append(photos)
        if UNSEARCHABLE in photos:
            raise EmbeddingInvalid("The search failed.")
        return [
            Found([Hit(rank, str(2 * photo), "", 1.0) for rank in range(1, query.k + 1)], None)
            for photo, query in zip(photos, queries, strict=True)
        ]

    def answer(self, query: Query) -> SearchResult:
        (found,) = self.nearest(self.submit([query], lone=True).wait(), [query])
        return SearchResult(found, {"forward": 1.0, "search": 1.0})

    def search(self, data: bytes, k: int, labels: Sequence[str] = ()) -> SearchResult:
        result = self.answer(self.query(data, k, labels))
        return SearchResult(result.found, {"decode": 1.0, **result.stages_ms})


class Bench:
    """A batcher with threads of its own."""

    def __init__(self, threads: int = 2) -> None:
        self.metrics = Metrics()
        self.threads = ThreadPoolExecutor(threads)
        self.batcher = Batcher(self.threads, self.metrics)

    def begin(self, engine: Doubles, photo: int, k: int = 1) -> "asyncio.Task[SearchResult]":
        return asyncio.create_task(self.batcher.search(cast(Engine, engine), lambda: engine.query(bytes([photo]), k)))

    async def all_decoded(self) -> None:
        """Waits until the searches begun so far are decoded and queued; the one free thread works in their order."""
        await asyncio.sleep(0)
        await asyncio.create_task(asyncio.to_thread(self.threads.submit(lambda: None).result, WORK_S))
        await asyncio.sleep(0.01)

    @asynccontextmanager
    async def busy(self, engine: Doubles) -> AsyncIterator[None]:
        """A lone search has a thread, and another one keeps the embed thread: what comes inside is the next batch."""
        engine.submitting.open.clear()
        kept = [self.begin(engine, 0)]
        await engine.submitting.has_been_entered()
        kept.append(self.begin(engine, 0))
        await engine.submitting.has_been_entered()
        try:
            yield
            await self.all_decoded()
        finally:
            engine.submitting.open.set()
        assert [ids(one) for one in await asyncio.gather(*kept)] == [["0"], ["0"]]


@contextmanager
def bench(threads: int = 2) -> Iterator[Bench]:
    made = Bench(threads)
    try:
        yield made
    finally:
        made.batcher.close()
        made.threads.shutdown()


def run(scenario: Callable[[Bench], Coroutine[Any, Any, None]], threads: int = 2) -> None:
    with bench(threads) as one:
        asyncio.run(asyncio.wait_for(scenario(one), WORK_S))


def ids(result: SearchResult) -> list[str]:
    return [hit.id for hit in result.found.hits]


def test_a_search_by_class_holds_up_no_other() -> None:
    async def scenario(one: Bench) -> None:
        engine = Doubles()
        engine.submitting.open.clear()
        first = one.begin(engine, 0)
        await engine.submitting.has_been_entered()
        query = replace(engine.query(bytes([3]), 1), by_class=True)
        by_class = asyncio.create_task(one.batcher.search(cast(Engine, engine), lambda: query))
        await engine.submitting.has_been_entered()
        engine.submitting.open.set()
        assert [ids(await task) for task in (first, by_class)] == [["0"], ["6"]]
        assert engine.lone == [0, 3]  # in work threads, so that the search thread is free

    run(scenario)


def test_a_lone_search_goes_through_at_once() -> None:
    async def scenario(one: Bench) -> None:
        engine = Doubles()
        result = await one.begin(engine, 3, k=2)
        assert ids(result) == ["6", "6"]
        assert (engine.batches, engine.lone, engine.searched) == ([[3]], [3], [[3]])
        assert set(result.stages_ms) == {"decode", "forward", "search"}
        assert one.metrics.registry.get_sample_value("carsearch_batch_photos_sum", {"work": "search"}) == 1

    run(scenario)


def test_what_arrives_while_the_runtime_is_busy_is_the_next_batch() -> None:
    async def scenario(one: Bench) -> None:
        engine = Doubles(batch=4)
        async with one.busy(engine):
            searches = [one.begin(engine, photo) for photo in range(1, 7)]
        results = await asyncio.gather(*searches)
        assert [ids(result) for result in results] == [[str(2 * photo)] for photo in range(1, 7)]
        assert all(set(result.stages_ms) == {"decode", "forward", "search"} for result in results)
        assert engine.batches == [[0], [0], [1, 2, 3, 4], [5, 6]]
        assert one.metrics.registry.get_sample_value("carsearch_batch_photos_sum", {"work": "search"}) == 8

    run(scenario)


def test_what_has_been_embedded_meanwhile_is_searched_together() -> None:
    async def scenario(one: Bench) -> None:
        engine = Doubles()
        engine.computing.open.clear()
        searches = []
        for photo in range(5):  # a batch each, and when the last is submitted those before it are being embedded
            searches.append(one.begin(engine, photo))
            await engine.submitting.has_been_entered()
        engine.computing.open.set()
        assert [ids(result) for result in await asyncio.gather(*searches)] == [["0"], ["2"], ["4"], ["6"], ["8"]]
        assert engine.batches == [[0], [1], [2], [3], [4]]
        together = max(engine.searched, key=len)
        assert together[:3] == [1, 2, 3]

    run(scenario)


def test_nobody_is_alone_while_another_decodes() -> None:
    async def scenario(one: Bench) -> None:
        slow, engine = Doubles(), Doubles()
        slow.decoding.open.clear()
        first = one.begin(slow, 1)
        await slow.decoding.has_been_entered()
        assert ids(await one.begin(engine, 2)) == ["4"]
        assert (engine.batches, engine.lone) == ([[2]], [])
        slow.decoding.open.set()
        assert ids(await first) == ["2"]

    run(scenario)


def test_a_search_that_is_cancelled_leaves_the_queue() -> None:
    async def scenario(one: Bench) -> None:
        engine = Doubles()
        async with one.busy(engine):
            searches = [one.begin(engine, photo) for photo in (1, 2, 3)]
            await one.all_decoded()
            searches[1].cancel()
        assert [ids(await searches[place]) for place in (0, 2)] == [["2"], ["6"]]
        assert engine.batches == [[0], [0], [1, 3]]

    run(scenario)


def test_the_next_engine_does_not_wait_behind_one_that_is_cancelled() -> None:
    async def scenario(one: Bench) -> None:
        old, new = Doubles(), Doubles()
        async with one.busy(old):
            given_up, search = one.begin(old, 1), one.begin(new, 2)
            await one.all_decoded()
            given_up.cancel()
        assert ids(await search) == ["4"]
        assert (old.batches, new.batches) == ([[0], [0]], [[2]])

    run(scenario)


def test_a_photo_that_cannot_be_decoded_fails_alone() -> None:
    async def scenario(one: Bench) -> None:
        engine = Doubles()
        async with one.busy(engine):
            searches = [one.begin(engine, photo) for photo in (1, BROKEN, 2)]
        with pytest.raises(ImageUndecodable):
            await searches[1]
        assert [ids(await searches[place]) for place in (0, 2)] == [["2"], ["4"]]
        assert engine.batches == [[0], [0], [1, 2]]

    run(scenario)


@pytest.mark.parametrize(("bad", "message"), [(POISON, "something odd"), (UNSEARCHABLE, "The search failed")])
def test_one_that_makes_its_batch_fail_fails_alone(bad: int, message: str) -> None:
    async def scenario(one: Bench) -> None:
        engine = Doubles()
        async with one.busy(engine):
            searches = [one.begin(engine, photo) for photo in (1, bad, 2)]
        with pytest.raises(EmbeddingInvalid, match=message):
            await searches[1]
        assert [ids(await searches[place]) for place in (0, 2)] == [["2"], ["4"]]
        assert engine.batches[2] == [1, bad, 2]
        assert engine.batches[-3:] == [[1], [bad], [2]]

    run(scenario)


def test_a_batch_that_fails_answers_everybody_and_the_next_search_too() -> None:
    async def scenario(one: Bench) -> None:
        engine = Doubles()
        async with one.busy(engine):
            searches = [one.begin(engine, POISON) for _ in range(3)]
        outcomes = await asyncio.gather(*searches, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EmbeddingInvalid] * 3
        assert ids(await one.begin(engine, 7)) == ["14"]

    run(scenario)


def test_a_batch_is_of_one_engine() -> None:
    async def scenario(one: Bench) -> None:
        old, new = Doubles(), Doubles()
        async with one.busy(old):
            order = ((old, 1), (new, 2), (new, 3), (old, 4))
            searches = [one.begin(engine, photo) for engine, photo in order]
        assert [ids(result) for result in await asyncio.gather(*searches)] == [["2"], ["4"], ["6"], ["8"]]
        assert (old.batches, new.batches) == ([[0], [0], [1], [4]], [[2, 3]])

    run(scenario)


def test_an_engine_that_is_swapped_out_is_free_after_its_last_batch() -> None:
    async def scenario(one: Bench) -> None:
        engine = Doubles()
        async with one.busy(engine):
            searches = [one.begin(engine, photo) for photo in (1, POISON, 2)]
        await asyncio.gather(*searches, return_exceptions=True)
        old.append(weakref.ref(engine))

    old = list[weakref.ref[Doubles]]()
    with bench() as one:
        asyncio.run(scenario(one))
        # Collected each time: a thread may still have held the engine before.
        eventually(lambda: gc.collect() >= 0 and old[0]() is None, "nothing holds the engine")


def test_closing_ends_the_two_threads() -> None:
    before = set(threading.enumerate())
    batcher = Batcher(ThreadPoolExecutor(1), Metrics())
    own = set(threading.enumerate()) - before
    assert {thread.name for thread in own} == {"embed_0", "search_0"}
    batcher.close()
    eventually(lambda: not any(thread.is_alive() for thread in own), "both threads end")


@settings(deadline=None, max_examples=50)
@given(
    photos=st.lists(
        st.tuples(
            st.integers(0, 100) | st.sampled_from([BROKEN, POISON, UNSEARCHABLE]), st.integers(1, 3), st.booleans()
        ),
        max_size=60,
    ),
    threads=st.integers(1, 4),
    batch=st.integers(1, 8),
)
def test_every_search_gets_its_own_answer(photos: list[tuple[int, int, bool]], threads: int, batch: int) -> None:
    async def scenario(one: Bench) -> None:
        engines = Doubles(batch), Doubles(batch)
        searches = []
        for turn, (photo, k, given_up) in enumerate(photos):
            searches.append(one.begin(engines[turn // 3 % 2], photo, k))
            if turn % 2:
                await asyncio.sleep(0)
            if given_up:
                searches[-1].cancel()  # before it has begun, or while it is decoded
        outcomes = await asyncio.gather(*searches, return_exceptions=True)
        for (photo, k, _), outcome in zip(photos, outcomes, strict=True):
            if isinstance(outcome, asyncio.CancelledError):
                continue
            if photo == BROKEN:
                assert isinstance(outcome, ImageUndecodable)
            elif photo in (POISON, UNSEARCHABLE):
                assert isinstance(outcome, EmbeddingInvalid)
            else:
                assert isinstance(outcome, SearchResult), outcome
                assert ids(outcome) == [str(2 * photo)] * k

    run(scenario, threads)


@pytest.fixture(scope="module")
def engines(fake_index: IndexDirectory) -> tuple[Engine, Engine]:
    """The same index loaded twice, as before and after a swap."""
    return Engine.load(fake_index, runtime="fake"), Engine.load(fake_index, runtime="fake")


PHOTOS = [*(car_photo(kind, shot) for kind in range(3) for shot in (0, 50)), car_photo()[:700], b"no photo"]
SEARCHES = st.tuples(
    st.sampled_from(range(len(PHOTOS))),
    st.sampled_from([1, 3, 12, 100]),
    st.sampled_from([(), ("car 1",), ("car 2", KOREAN), ("spaceship",)]),
    st.booleans(),
)


@settings(deadline=None, max_examples=20)
@given(searches=st.lists(SEARCHES, max_size=24), threads=st.integers(1, 3))
def test_087_in_any_company_a_search_finds_what_it_finds_alone(
    engines: tuple[Engine, Engine], searches: list[tuple[int, int, tuple[str, ...], bool]], threads: int
) -> None:
    async def outcome(work: Callable[[], Coroutine[Any, Any, list[Hit]]]) -> object:
        try:
            return [(hit.rank, hit.id, hit.label, round(hit.score, 5)) for hit in await work()]
        except CarsearchError as problem:
            return problem.code

    async def scenario(one: Bench) -> None:
        tasks, alone = [], []
        for photo, k, labels, second in searches:
            engine = engines[second]

            async def together(
                engine: Engine = engine, photo: int = photo, k: int = k, labels: tuple[str, ...] = labels
            ) -> list[Hit]:
                return (
                    await one.batcher.search(engine, lambda: engine.query(PHOTOS[photo], k, engine.rows(labels)))
                ).found.hits

            async def by_itself(
                engine: Engine = engine, photo: int = photo, k: int = k, labels: tuple[str, ...] = labels
            ) -> list[Hit]:
                return engine.search(PHOTOS[photo], k, labels)

            tasks.append(asyncio.create_task(outcome(together)))
            alone.append(by_itself)
        assert [await task for task in tasks] == [await outcome(one) for one in alone]

    run(scenario, threads)
