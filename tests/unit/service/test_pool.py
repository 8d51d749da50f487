"""The threads for searches: work that nobody waits for any more still counts until its thread is free."""

import asyncio
import gc
import os
import threading
import weakref

import pytest
from fastapi import Request
from service.priority import WORK_NICENESS
from starlette.requests import ClientDisconnect
from starlette.types import Message

from model.errors import ImageUndecodable
from service.http.errors import DeadlineExceeded, Overloaded
from service.http.workers import WorkPool
from service.observability.metrics import Metrics
from service.settings import load_settings


def request_of(patience_s: float) -> Request:
    """A request whose client goes away after some time."""

    async def receive() -> Message:
        await asyncio.sleep(patience_s)
        return {"type": "http.disconnect"}

    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}, receive)


@pytest.mark.parametrize(("patience_s", "raised"), [(60, DeadlineExceeded), (0.01, ClientDisconnect)])
def test_work_that_is_given_up_holds_its_place_until_it_ends(patience_s: float, raised: type[Exception]) -> None:
    metrics, free = Metrics(), threading.Event()
    pool = WorkPool(load_settings(search_threads=2, max_queue=1, request_deadline_s=0.2), metrics)

    def gauges() -> list[float | None]:
        return [
            metrics.registry.get_sample_value(f"carsearch_queue_{name}") for name in ("waiting", "running", "limit")
        ]

    async def scenario() -> None:
        stuck = [pool.run(free.wait, request_of(patience_s)) for _ in range(2)]
        outcomes = await asyncio.gather(*stuck, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [raised, raised]
        assert gauges() == [0, 2, 1]
        queued = asyncio.ensure_future(pool.run(lambda: "answer", request_of(60)))
        await asyncio.sleep(0)
        assert gauges() == [1, 2, 1]
        with pytest.raises(Overloaded):
            await pool.run(lambda: "answer", request_of(60))
        free.set()
        assert (await queued)[0] == "answer"
        await asyncio.sleep(0.1)
        assert gauges() == [0, 0, 1]

    try:
        asyncio.run(scenario())
    finally:
        free.set()
        pool.close()


def test_work_that_is_given_up_while_it_waits_leaves_the_queue_and_is_never_done() -> None:
    metrics, free, done = Metrics(), threading.Event(), list[str]()
    pool = WorkPool(load_settings(search_threads=1, max_queue=1), metrics)

    async def scenario() -> None:
        first = asyncio.ensure_future(pool.run(free.wait, request_of(60)))
        await asyncio.sleep(0.05)
        with pytest.raises(ClientDisconnect):
            await pool.run(lambda: done.append("late"), request_of(0.01))
        await asyncio.sleep(0.05)
        assert metrics.registry.get_sample_value("carsearch_queue_waiting") == 0
        assert metrics.registry.get_sample_value("carsearch_queue_running") == 1
        free.set()
        await first

    try:
        asyncio.run(scenario())
    finally:
        free.set()
        pool.close()
    assert done == []


class Picture:
    """Stands for a hundred megabytes."""


def test_what_a_damaged_photo_took_is_free_when_it_is_refused_and_not_when_the_garbage_collector_comes() -> None:
    pool, taken = WorkPool(load_settings(search_threads=1, max_queue=1), Metrics()), list[weakref.ref[Picture]]()

    def decode() -> None:
        picture = Picture()
        taken.append(weakref.ref(picture))
        try:
            raise ValueError("broken")
        except ValueError as problem:
            raise ImageUndecodable("damaged") from problem

    async def scenario() -> None:
        with pytest.raises(ImageUndecodable, match="damaged"):
            await pool.run(decode, request_of(60))

    gc.disable()
    try:
        asyncio.run(scenario())
        assert [picture() for picture in taken] == [None]
    finally:
        gc.enable()
        pool.close()


def test_threads_that_work_stand_back_behind_the_event_loop() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)  # on Linux of the calling thread

    pool, own = WorkPool(load_settings(search_threads=1), Metrics()), niceness()
    try:
        found, _ = asyncio.run(pool.run(niceness, request_of(60)))
    finally:
        pool.close()
    assert (found, niceness()) == (min(19, own + WORK_NICENESS), own)
