"""Work threads for everything that must not run on the event loop, with a bounded queue and a deadline."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from model.errors import CarsearchError
from service.errors import DeadlineExceeded, Overloaded
from service.http.admission import QUEUE_FULL, FairShare
from service.http.context import context_of
from service.observability.metrics import Metrics
from service.process import started_threads

Result = TypeVar("Result")


class Workers:
    """Runs searches and image requests; refuses at once when too many wait."""

    def __init__(self, threads: int, places: FairShare, deadline_s: float, metrics: Metrics) -> None:
        """`places` are one for each request that is worked on or waits; only the event loop touches them."""
        self._threads = started_threads("work", threads)
        self._places, self._deadline_s = places, deadline_s
        self._waiting, self._running = metrics.queue_waiting, metrics.queue_running
        metrics.queue_limit.set(places.limit - threads)

    async def run(self, work: Callable[[], Result], request: Request) -> tuple[Result, float]:
        """Runs `work` in a thread; returns its result and the milliseconds that it waited. Raises as `begin` does."""

        def whole(reply: "Future[Result]") -> None:
            if reply.set_running_or_notify_cancel():
                reply.set_result(work())

        return await self.begin(whole, request)

    async def begin(self, work: Callable[["Future[Result]"], None], request: Request) -> tuple[Result, float]:
        """Runs `work` in a thread; it answers the future that it is given, or has another thread answer it later.

        Returns the answer and the milliseconds that `work` waited for a thread. Raises what `work` raises, Overloaded
        when no place is free, DeadlineExceeded when the answer would come too late, ClientDisconnect when the client
        has left. Then the future is cancelled; work that has begun goes on until it ends.
        """
        client = context_of(request.scope).client
        if not self._places.has_room(client):
            raise Overloaded(QUEUE_FULL)
        accepted = time.perf_counter()
        waited_ms = 0.0

        def timed(reply: "Future[Result]") -> None:
            nonlocal waited_ms
            waited_ms = (time.perf_counter() - accepted) * 1000
            work(reply)

        answer = asyncio.wrap_future(self._submit(timed, client))
        try:
            async with asyncio.timeout(self._deadline_s):
                if not await done_while_connected(request, answer):
                    raise ClientDisconnect
                return answer.result(), waited_ms
        except TimeoutError as problem:
            raise DeadlineExceeded("The answer was not ready in time; try again in a moment.") from problem
        finally:
            answer.cancel()

    def _submit(self, work: Callable[["Future[Result]"], None], client: str) -> "Future[Result]":
        loop = asyncio.get_running_loop()
        reply: Future[Result] = Future()

        def in_thread() -> None:
            self._waiting.dec()
            self._running.inc()
            try:
                work(reply)
            except BaseException as problem:
                _drop_frames(problem)
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
            elif thread.cancel():  # it never left the queue
                self._waiting.dec()
                loop.call_soon_threadsafe(leave)
            else:  # work that nobody waits for any more holds its place until its thread is free
                thread.add_done_callback(end)

        self._places.take(client)
        self._waiting.inc()
        thread = self._threads.submit(in_thread)
        reply.add_done_callback(answered)
        return reply

    @property
    def busy(self) -> bool:
        """Whether there is anything to be answered; may be asked from any thread."""
        return self._places.taken > 0

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


def _drop_frames(problem: BaseException) -> None:
    """Takes the frames from an error that a client has caused, and from its causes.

    They hold the photo and its pixels, up to 150 MB, and the future that holds the error: a cycle that would stay until
    the garbage collector comes.
    """
    if isinstance(problem, CarsearchError) and (problem.status or 500) < 500:
        error: BaseException | None = problem
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__


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
