"""Threads for the work that must not run on the event loop, with a bounded queue and a deadline."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.metrics import Metrics
from service.problems import DeadlineExceeded, Overloaded
from service.settings import Settings

Result = TypeVar("Result")


class WorkPool:
    """Runs searches and image requests; refuses at once when too many wait."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._threads = ThreadPoolExecutor(settings.search_threads, thread_name_prefix="search")
        self._limit = settings.search_threads + settings.max_queue
        self._deadline_s = settings.request_deadline_s
        self._waiting = 0  # touched on the event loop only
        self._gauge = metrics.waiting

    async def run(self, work: Callable[[], Result], request: Request) -> tuple[Result, float]:
        """Runs `work` in a thread; returns its result and how long it waited for one, in milliseconds.

        Raises Overloaded when the queue is full, DeadlineExceeded when the answer would come too late, ClientDisconnect
        when nobody waits for it any more. Work that is still waiting then is never started.
        """
        if self._waiting >= self._limit:
            raise Overloaded("The server has more searches than it can answer; try again in a moment.")
        accepted = time.perf_counter()

        def timed() -> tuple[Result, float]:
            waited_ms = (time.perf_counter() - accepted) * 1000
            return work(), waited_ms

        self._waiting += 1
        self._gauge.set(self._waiting)
        try:
            async with asyncio.timeout(self._deadline_s):
                running = asyncio.get_running_loop().run_in_executor(self._threads, timed)
                return await _unless_gone(request, running)
        except TimeoutError as problem:
            raise DeadlineExceeded("The answer was not ready in time; try again in a moment.") from problem
        finally:
            self._waiting -= 1
            self._gauge.set(self._waiting)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


async def disconnected(request: Request) -> None:
    """Returns when the client of a request whose body has been read is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _unless_gone(request: Request, running: "asyncio.Future[Result]") -> Result:
    gone: asyncio.Future[Any] = asyncio.ensure_future(disconnected(request))
    waited_for: tuple[asyncio.Future[Any], ...] = (running, gone)
    try:
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ClientDisconnect
        return running.result()
    finally:
        running.cancel()
        gone.cancel()
