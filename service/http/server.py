"""The server process: one event loop, one worker; several are several processes."""

import faulthandler
import logging
import resource
import socket

import uvicorn

from model.errors import SettingsInvalid
from service.allocator import collect_seldom, give_memory_back
from service.http.app import create_app
from service.http.drain import Drain, DrainingServer
from service.http.protocol import bounded_protocol
from service.observability.logging import start_log
from service.priority import loop_waits_shortly
from service.settings import Settings

GRACE_S = 30
BACKLOG = 2048
ACCEPTED_AT_ONCE = 64
"""libuv accepts one connection of a socket in each turn of its loop (its pull request 3696). Turns are long where much
is refused, and every newcomer, a health check too, would wait for those before it: so one socket listens many times."""

log = logging.getLogger("carsearch")


def run(settings: Settings, host: str, port: int) -> None:
    """Serves until SIGTERM or Ctrl-C; requests that were accepted are answered first, within GRACE_S seconds."""
    start_log(settings)
    faulthandler.enable()  # a crash below Python says where it was, in the log
    give_memory_back()
    loop_waits_shortly()
    with listen(host, port) as listener:  # first: a port that is taken must leave nothing behind
        server = make_server(settings)
        collect_seldom()
        log.info("listening on %s port %d", *listener.getsockname()[:2])
        server.run(sockets=several(listener))


def several(listener: socket.socket) -> list[socket.socket]:
    """A listening socket, and as many more for the same connections as are accepted at once.

    They take a sixteenth of the files that the process may open at most: what is left is for connections and photos.
    """
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = may_open == resource.RLIM_INFINITY
    at_once = ACCEPTED_AT_ONCE if unlimited else max(1, min(ACCEPTED_AT_ONCE, may_open // 16))
    return [listener, *(listener.dup() for _ in range(at_once - 1))]


def make_server(settings: Settings) -> uvicorn.Server:
    """A server that is still to be run; raises SettingsInvalid."""
    drain = Drain()
    config = uvicorn.Config(
        create_app(settings, drain),
        http=bounded_protocol(settings),
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or [],  # and never what the environment says to uvicorn
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,  # the guard writes one line a request, with the request's id
        timeout_graceful_shutdown=GRACE_S,
    )
    return DrainingServer(config, drain, settings.drain_s)


def listen(host: str, port: int) -> socket.socket:
    """Binds before uvicorn does, which would end the process with its own status; raises CarsearchError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol has to be named: asyncio turns Nagle's delay off (40 ms an answer) only where it says TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as problem:
        listener.close()
        raise SettingsInvalid(f"The server cannot listen on {host} port {port}: {problem.strerror}.") from problem
    return listener
