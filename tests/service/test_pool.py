"""The threads for searches: work that nobody waits for any more still counts until its thread is free."""

import asyncio
import threading

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.metrics import Metrics
from service.pool import WorkPool
from service.problems import DeadlineExceeded, Overloaded
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

    def waiting() -> float:
        return metrics.registry.get_sample_value("carsearch_waiting") or 0

    async def scenario() -> None:
        stuck = [pool.run(free.wait, request_of(patience_s)) for _ in range(2)]
        outcomes = await asyncio.gather(*stuck, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [raised, raised]
        assert waiting() == 2
        queued = asyncio.ensure_future(pool.run(lambda: "answer", request_of(60)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await pool.run(lambda: "answer", request_of(60))
        free.set()
        assert (await queued)[0] == "answer"
        await asyncio.sleep(0.1)
        assert waiting() == 0

    asyncio.run(scenario())
    pool.close()
