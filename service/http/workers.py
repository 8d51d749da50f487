"""Work that must not run on the event loop: bounded in number, and with a deadline."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.errors import DeadlineExceeded, Overloaded
from service.http.admission import QUEUE_FULL, FairShare
from service.http.context import RequestContext
from service.observability.metrics import Metrics
from service.process import started_threads

Result = TypeVar("Result")


class Workers:
    """Work threads, and a place for each request that is worked on or waits; for one event loop."""

    def __init__(self, threads: int, places: FairShare, deadline_s: float, metrics: Metrics) -> None:
        self.threads = started_threads("work", threads)
        self._places, self._deadline_s = places, deadline_s
        metrics.queue_limit.set(places.limit - threads)
        metrics.queue_running.set_function(lambda: min(places.taken, threads))
        metrics.queue_waiting.set_function(lambda: max(0, places.taken - threads))

    async def run(self, work: Callable[[], Result], request: Request) -> Result:
        """Runs `work` in a thread; raises as `answer` does."""
        loop = asyncio.get_running_loop()

        async def in_thread() -> Result:
            return await loop.run_in_executor(self.threads, work)

        return await self.answer(in_thread(), request)

    async def answer(self, work: Coroutine[Any, Any, Result], request: Request, *, watched: bool = True) -> Result:
        """Awaits the `work` for a request whose body is complete, in a work place.

        Raises Overloaded when no place is free, DeadlineExceeded when the answer would come too late, ClientDisconnect
        when the client has left. Then the work is cancelled; what a thread has begun goes on until it ends. One of
        several answers to a request is not `watched`: who awaits them all sees the client leave.
        """
        context: RequestContext = request.scope["context"]
        client = context.client
        if not self._places.has_room(client):
            work.close()
            raise Overloaded(QUEUE_FULL)
        self._places.take(client)
        running = asyncio.ensure_future(work)
        try:
            async with asyncio.timeout(self._deadline_s):
                if watched and not await done_while_connected(request, running):
                    raise ClientDisconnect
                return await running
        except TimeoutError as problem:
            raise DeadlineExceeded("The answer was not ready in time; try again in a moment.") from problem
        finally:
            running.cancel()
            self._places.give_back(client)

    @property
    def busy(self) -> bool:
        """Whether there is anything to be answered; may be asked from any thread."""
        return self._places.taken > 0

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)


async def done_while_connected(request: Request, running: "asyncio.Future[Result]") -> bool:
    """Waits for `running`, or until the client of a request whose body has been read is gone; True when it is done."""
    gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([running, gone], return_when=asyncio.FIRST_COMPLETED)
        return running.done()
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
