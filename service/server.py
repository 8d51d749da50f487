"""The server process: one event loop, one worker; several are several processes."""

import logging
import socket

import uvicorn

from model.errors import SettingsInvalid
from service.app import create_app
from service.settings import Settings

GRACE_S = 30
log = logging.getLogger("carsearch")


def run(settings: Settings, host: str, port: int) -> None:
    """Serves until SIGTERM or Ctrl-C; requests that were accepted are answered first."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with _listen(host, port) as listener:  # first: a port that is taken must leave nothing behind
        config = uvicorn.Config(
            create_app(settings),
            log_config=None,
            access_log=False,  # the guard writes one line a request, with the request's id
            timeout_graceful_shutdown=GRACE_S,
        )
        log.info("listening on %s port %d", *listener.getsockname()[:2])
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Binds before uvicorn does, which would end the process with its own status; raises CarsearchError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as problem:
        # The message repeats the address after the reason; os.strerror knows nothing of names that are not found.
        reason = str(problem.strerror or problem).partition(" (while ")[0]
        raise SettingsInvalid(f"The server cannot listen on {host} port {port}: {reason}.") from problem
