"""Work that must not run on the event loop: places, the deadline, and clients that leave."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from model.errors import ImageUndecodable
from service.errors import DeadlineExceeded, Overloaded
from service.http.admission import FairShare
from service.http.workers import Workers
from service.observability.metrics import Metrics
from tests.support.asgi import scope_of

LONG_S = 60


def request_of(patience_s: float = LONG_S, client: str = "a") -> Request:
    """A request whose client goes away after some time."""

    async def receive() -> Message:
        await asyncio.sleep(patience_s)
        return {"type": "http.disconnect"}

    return Request(scope_of("search", "photo", client), receive)


class Bench:
    """Workers with places of their own, and work that waits until `free` is set."""

    def __init__(self, threads: int, max_queue: int, deadline_s: float) -> None:
        self.metrics = Metrics()
        self.places = FairShare(threads + max_queue)
        self.workers = Workers(threads, self.places, deadline_s, self.metrics)
        self.begun, self.free = threading.Semaphore(0), threading.Event()

    def wait(self) -> str:
        self.begun.release()
        assert self.free.wait(LONG_S)
        return "answer"

    def gauges(self) -> list[float | None]:
        """Waiting, running, and how many may wait."""
        sample = self.metrics.registry.get_sample_value
        return [sample(f"carsearch_queue_{name}") for name in ("waiting", "running", "limit")]


@contextmanager
def bench(threads: int = 1, max_queue: int = 2, deadline_s: float = LONG_S) -> Iterator[Bench]:
    made = Bench(threads, max_queue, deadline_s)
    try:
        yield made
    finally:
        made.free.set()
        made.workers.close()


async def has_begun(one: Bench) -> None:
    assert await asyncio.to_thread(one.begun.acquire, timeout=LONG_S)


def test_each_request_has_a_place_until_it_is_answered() -> None:
    async def scenario(one: Bench) -> None:
        assert (one.gauges(), one.workers.busy) == ([0, 0, 2], False)
        replies = [asyncio.ensure_future(one.workers.run(one.wait, request_of())) for _ in range(2)]
        await has_begun(one)
        assert (one.gauges(), one.workers.busy) == ([1, 1, 2], True)
        one.free.set()
        assert [await reply for reply in replies] == ["answer", "answer"]
        assert (one.gauges(), one.workers.busy) == ([0, 0, 2], False)

    with bench() as one:
        asyncio.run(scenario(one))


def test_more_than_there_are_places_for_are_refused_at_once_and_never_worked_on() -> None:
    worked = list[str]()

    async def never() -> str:
        worked.append("refused work")
        return ""

    async def scenario(one: Bench) -> None:
        replies = [asyncio.ensure_future(one.workers.run(one.wait, request_of())) for _ in range(3)]
        await has_begun(one)
        with pytest.raises(Overloaded):
            await one.workers.answer(never(), request_of())
        one.free.set()
        await asyncio.gather(*replies)

    with bench() as one:
        asyncio.run(scenario(one))
    assert worked == []


def test_a_greedy_client_leaves_places_to_others() -> None:
    async def scenario(one: Bench) -> None:
        greedy = list[asyncio.Future[str]]()
        while one.places.has_room("greedy"):
            greedy.append(asyncio.ensure_future(one.workers.run(one.wait, request_of(client="greedy"))))
            await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await one.workers.run(one.wait, request_of(client="greedy"))
        other = asyncio.ensure_future(one.workers.run(one.wait, request_of(client="other")))
        one.free.set()
        assert await other == "answer"
        await asyncio.gather(*greedy)

    with bench(threads=1, max_queue=17) as one:
        asyncio.run(scenario(one))


@pytest.mark.parametrize(
    ("deadline_s", "patience_s", "raised"), [(0.05, LONG_S, DeadlineExceeded), (LONG_S, 0.05, ClientDisconnect)]
)
def test_work_that_nobody_waits_for_any_more_gives_its_place_back_and_is_not_begun(
    deadline_s: float, patience_s: float, raised: type[Exception]
) -> None:
    late = list[str]()

    async def scenario(one: Bench) -> None:
        first = asyncio.ensure_future(one.workers.run(one.wait, request_of(patience_s)))
        await has_begun(one)
        with pytest.raises(raised):
            await one.workers.run(lambda: late.append("done"), request_of(patience_s))
        with pytest.raises(raised):
            await first
        assert one.places.taken == 0
        await asyncio.sleep(0.01)  # by now the late one has been taken from the threads' queue
        one.free.set()
        assert one.workers.threads.submit(lambda: "idle").result(LONG_S) == "idle"

    with bench(deadline_s=deadline_s) as one:
        asyncio.run(scenario(one))
    assert late == []


def test_what_work_raises_reaches_its_request_and_gives_the_place_back() -> None:
    def fail() -> None:
        raise ImageUndecodable("damaged")

    async def scenario(one: Bench) -> None:
        with pytest.raises(ImageUndecodable, match="damaged"):
            await one.workers.run(fail, request_of())
        assert one.places.taken == 0

    with bench() as one:
        asyncio.run(scenario(one))
