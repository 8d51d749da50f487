"""SIGTERM: not ready at once, requests answered for a while still, then uvicorn's own way of stopping."""

import asyncio
import logging
import signal
import socket
import time
from types import FrameType

import uvicorn

LOOKS = 5
LOOK_S = 0.02
log = logging.getLogger("carsearch")


class Drain:
    """Whether this process is about to stop; `begun` is read by the guard and by /readyz."""

    def __init__(self) -> None:
        self.begun = False


class DrainingServer(uvicorn.Server):
    """Stops `drain_s` seconds after the first SIGTERM, so that whoever balances the load sees it coming.

    uvicorn closes its sockets at once; a balancer that asks /readyz every few seconds would go on sending requests to a
    closed port. A second signal, or Ctrl-C, does not wait.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, drain_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_s = drain_s
        self._stop_at: float | None = None
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        first = not self._drain.begun
        self._drain.begun = True
        if first and sig == signal.SIGTERM and self._drain_s > 0:
            self._captured_signals.append(sig)  # uvicorn ends the process by it when all is done
            self._stop_at = time.monotonic() + self._drain_s
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None:
            if not self._told:  # here and not in the handler, which may have interrupted the log itself
                log.info("draining: not ready any more, and stopping in %g s", self._drain_s)
            self._told = True
            self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes what has arrived before the sockets are closed.

        uvicorn closes them with what it has not read: connections that wait to be accepted, and requests on kept ones.
        Each turn of the event loop reads what has come until then, and a new connection needs two.
        """
        for _ in range(LOOKS):
            await asyncio.sleep(LOOK_S)
        await super().shutdown(sockets)
