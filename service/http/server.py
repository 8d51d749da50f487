"""The server process: one event loop, one worker; several workers are several processes."""

import asyncio
import faulthandler
import logging
import math
import signal
import socket
import threading
import time
from functools import partial
from types import FrameType

import uvicorn

from model.errors import SettingsInvalid
from service.http.app import create_app
from service.http.limits import Limits
from service.http.protocol import LimitedHttpProtocol
from service.http.proxies import BehindProxies
from service.observability.logging import start_log
from service.process import freeze_objects, tune_interpreter
from service.settings import Settings

GRACE_S = 30
BACKLOG = 2048
ARRIVED_S = 0.1
"""How long a server that stops takes in what has arrived: uvicorn closes its sockets with unread requests in them."""
TURNS = BACKLOG + 64
"""Turns of the event loop that it takes as well, as a busy machine may give it no time: one accepts one connection."""

log = logging.getLogger("carsearch")


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serves until SIGTERM or Ctrl-C; requests that were accepted are answered first, within GRACE_S seconds."""
    start_log(settings)
    faulthandler.enable()  # a crash below Python says where it was, in the log
    tune_interpreter()
    server = make_server(settings)
    freeze_objects()
    log.info("listening on %s port %d", *listener.getsockname()[:2])
    server.run(sockets=[listener])


def make_server(settings: Settings, limits: Limits | None = None) -> uvicorn.Server:
    """A server that is still to be run; raises SettingsInvalid."""
    draining, limits = threading.Event(), limits or Limits()
    config = uvicorn.Config(
        BehindProxies(create_app(settings, draining, limits), settings.root_path, settings.trusted_proxies),
        http=partial(LimitedHttpProtocol, limits=limits),  # type: ignore[arg-type]  # calls it as a class
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # any number
        proxy_headers=False,  # `BehindProxies` reads them, and does not ask the environment whom to trust
        loop="uvloop",
        ws="none",
        log_config=None,
        server_header=False,
        access_log=False,  # `AccessLog` writes one line a request, with the request's id
        timeout_graceful_shutdown=GRACE_S,
    )
    return DrainingServer(config, draining, settings.drain_s)


def listen(host: str, port: int) -> socket.socket:
    """Binds before uvicorn does, which would end the process with its own status; raises SettingsInvalid."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as problem:
        reason = str(problem.strerror).partition(" (while")[0]  # Python adds the address
        raise SettingsInvalid(f"The server cannot listen on {host} port {port}: {reason}.") from problem


class DrainingServer(uvicorn.Server):
    """Stops `drain_s` seconds after the first SIGTERM, so that a load balancer sees it coming.

    uvicorn closes its sockets at once; a balancer that asks /readyz every few seconds would go on sending requests to a
    closed port. A second signal, or Ctrl-C, does not wait.
    """

    def __init__(self, config: uvicorn.Config, draining: threading.Event, drain_s: float) -> None:
        super().__init__(config)
        self._draining, self._drain_s, self._stop_at, self._told = draining, drain_s, math.inf, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._drain_s > 0 and not self._draining.is_set():
            self._stop_at = time.monotonic() + self._drain_s
            self._captured_signals.append(sig)  # uvicorn ends the process by it when all is done
        else:
            super().handle_exit(sig, frame)
        self._draining.set()

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at < math.inf and not self._told:  # the handler of a signal must not log: it may interrupt that
            self._told = True
            log.info("draining: not ready any more, and stopping in %g s", self._drain_s)
        self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for seconds in (ARRIVED_S, *[0.0] * TURNS):
            await asyncio.sleep(seconds)
        await super().shutdown(sockets)
