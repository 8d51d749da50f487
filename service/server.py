"""The server process: one event loop, one worker; several are several processes."""

import logging

import uvicorn

from service.app import create_app
from service.settings import Settings

GRACE_S = 30


def run(settings: Settings, host: str, port: int) -> None:
    """Serves until SIGTERM or Ctrl-C; requests that were accepted are answered first."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # the guard writes one line a request, with the request's id
        timeout_graceful_shutdown=GRACE_S,
    )
    uvicorn.Server(config).run()
