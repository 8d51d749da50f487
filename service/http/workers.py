"""Threads for the work that must not run on the event loop, with a bounded queue and a deadline."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from model.errors import CarsearchError
from service.http.errors import FULL, STATUS_OF, DeadlineExceeded, Overloaded
from service.http.shares import Shares
from service.observability.metrics import Metrics
from service.priority import stand_back
from service.settings import Settings

Result = TypeVar("Result")


class WorkPool:
    """Runs searches and image requests; refuses at once when too many wait."""

    def __init__(self, settings: Settings, metrics: Metrics, places: Shares | None = None) -> None:
        """`places` are those that work has in threads and queue; the guard looks at them too."""
        self._threads = started_threads("search", settings.search_threads)
        self._places = places or places_of(settings)  # touched on the event loop only
        self._deadline_s = settings.request_deadline_s
        self._waiting, self._running = metrics.queue_waiting, metrics.queue_running
        metrics.queue_limit.set(settings.max_queue)

    async def run(self, work: Callable[[], Result], request: Request) -> tuple[Result, float]:
        """Runs `work` in a thread; returns its result and how long it waited for one, in milliseconds.

        Raises as `begin` does. Work that has begun when nobody waits for it any more goes on until it ends.
        """

        def whole(reply: "Future[Result]") -> None:
            if reply.set_running_or_notify_cancel():
                reply.set_result(work())

        return await self.begin(whole, request)

    async def begin(self, work: Callable[["Future[Result]"], None], request: Request) -> tuple[Result, float]:
        """Runs `work` in a thread; it answers the future that it is given, or has another thread answer it later.

        Returns the answer and how long it waited for a thread, in milliseconds. Raises what `work` raises or answers,
        Overloaded when the queue is full, DeadlineExceeded when the answer would come too late, ClientDisconnect when
        nobody waits for it any more; then the future is cancelled, unless somebody has marked it as running.
        """
        client = str(request.scope.get("asker", ""))
        self._places.redeem(request.scope)
        if not self._places.room(client):
            raise Overloaded(FULL)
        accepted = time.perf_counter()
        waited_ms = 0.0

        def timed(reply: "Future[Result]") -> None:
            nonlocal waited_ms
            waited_ms = (time.perf_counter() - accepted) * 1000
            work(reply)

        running = asyncio.wrap_future(self._submit(timed, client))
        try:
            async with asyncio.timeout(self._deadline_s):
                if not await done_while_connected(request, running):
                    raise ClientDisconnect
                return running.result(), waited_ms
        except TimeoutError as problem:
            raise DeadlineExceeded("The answer was not ready in time; try again in a moment.") from problem
        finally:
            running.cancel()

    def _submit(self, work: Callable[["Future[Result]"], None], client: str) -> "Future[Result]":
        loop = asyncio.get_running_loop()
        reply: Future[Result] = Future()

        def in_thread() -> None:
            self._waiting.dec()
            self._running.inc()
            try:
                work(reply)
            except BaseException as problem:
                _let_go(problem)
                if not reply.done():
                    reply.set_exception(problem)

        def leave() -> None:
            self._places.give_back(client)

        def end(_thread: object = None) -> None:
            self._running.dec()
            loop.call_soon_threadsafe(leave)

        def answered(reply: "Future[Result]") -> None:
            if not reply.cancelled():
                end()
            elif working.cancel():  # it never left the queue by itself
                self._waiting.dec()
                loop.call_soon_threadsafe(leave)
            else:  # work that nobody waits for any more still has its thread: it counts until the thread is free
                working.add_done_callback(end)

        self._places.take(client)
        self._waiting.inc()
        working = self._threads.submit(in_thread)
        reply.add_done_callback(answered)
        return reply

    @property
    def busy(self) -> bool:
        """Whether there is anything to be answered; may be asked from any thread."""
        return self._places.taken > 0

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


def _let_go(problem: BaseException) -> None:
    """Takes from an error that a client caused, and from its causes, the frames that it has come through.

    They hold the photo and what was made of it, and one of them holds the reply, which holds the error: that would end
    when the garbage collector comes, and the memory of damaged photos of 50 million pixels would add up until then.
    """
    if not isinstance(problem, CarsearchError) or STATUS_OF.get(problem.code, 500) >= 500:
        return  # the log tells where it was
    error: BaseException | None = problem
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def started_threads(name: str, count: int) -> ThreadPoolExecutor:
    """A pool of threads that stand back, all of them started: later the machine might have none to give."""
    threads = ThreadPoolExecutor(count, thread_name_prefix=name, initializer=stand_back)
    all_started = threading.Barrier(count + 1)
    for _ in range(count):
        threads.submit(all_started.wait)
    all_started.wait()
    return threads


def places_of(settings: Settings) -> Shares:
    """One for each search or gallery image that is worked on or waits."""
    return Shares(settings.search_threads + settings.max_queue)


async def done_while_connected(request: Request, running: "asyncio.Future[Result]") -> bool:
    """Waits for `running`, or until the client of a request whose body has been read is gone; True when it is done."""
    gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnected(request))
    waited_for: tuple[asyncio.Future[Any], ...] = (running, gone)
    try:
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        return running.done()
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
