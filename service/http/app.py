"""The HTTP application: parts, routes, error handlers, and the intake around them."""

import asyncio
import logging
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from indexer.stores.faiss import refuse_two_distributions
from model.errors import SettingsInvalid
from service import __version__
from service.batching import Batcher
from service.http import errors
from service.http.drain import Drain
from service.http.guard import Guard
from service.http.routes import evaluate, gallery, ops, search
from service.http.shares import Shares
from service.http.state import State
from service.http.workers import WorkPool, places_of
from service.jobs import Evaluations
from service.observability.metrics import Metrics
from service.observability.tracing import Tracing
from service.reloader import Serving
from service.settings import PREFIX, Settings

END_S = 5
"""Everything has been answered by then, and an evaluation stops within a batch."""

log = logging.getLogger("carsearch")

DESCRIPTION = """\
A photo of a car goes in; the nearest car of a gallery and its class come out.

Errors have one shape, `application/problem+json`, with a stable `code`."""


def create_app(settings: Settings, drain: Drain | None = None) -> Guard:
    """A server for one index directory; it is live at once, and ready from when the index is loaded until it drains.

    The guard stands around everything, the handler of bugs included, so that every answer is counted and has its id.
    """
    drain = drain or Drain()
    metrics, tracing = Metrics(), Tracing.from_environment()
    metrics.draining.set_function(lambda: drain.begun)
    places = places_of(settings)
    return Guard(create_api(settings, metrics, drain, tracing, places), settings, metrics, drain, tracing, places)


def create_api(settings: Settings, metrics: Metrics, drain: Drain, tracing: Tracing, places: Shares) -> FastAPI:
    """The routes without the guard."""
    refuse_two_distributions()
    _assert_writable("spool_dir", settings.spool_dir, make=False)
    for name, directory in (("state_dir", settings.state_dir), ("cache_dir", settings.cache_dir)):
        if directory is not None:
            _assert_writable(name, directory, make=True)
    pool = WorkPool(settings, metrics, places)
    state = State(
        settings=settings,
        metrics=metrics,
        serving=Serving(settings, metrics),
        pool=pool,
        batcher=Batcher(metrics),
        evaluations=Evaluations(settings, metrics, lambda: pool.busy),
        drain=drain,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        state.serving.start()
        yield
        _end_threads(state)
        state.serving.stop()
        await asyncio.to_thread(tracing.close)

    # The documents' scripts come from the package and not from somebody's content network.
    app = FastAPIOffline(
        title="carsearch", version=__version__, description=DESCRIPTION, redoc_url=None, lifespan=lifespan
    )
    app.state.parts = state
    routers = [routes.router for routes in (search, evaluate, gallery, ops)]
    errors.install(app, routers)
    for router in routers:
        app.include_router(router)

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app


def _end_threads(state: State) -> None:
    """Waits for the threads that work, but not for one that hangs in a decoder: nobody waits for what it does."""

    def end() -> None:
        state.evaluations.close()
        state.pool.close()

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(END_S)
    if ending.is_alive():
        log.warning("a thread is still at work after %d s; the process ends without it", END_S)


def _assert_writable(name: str, directory: Path, make: bool) -> None:
    """Raises SettingsInvalid before anything is served and not in the middle of somebody's request."""
    try:
        if make:
            directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()  # permission bits do not tell of a file system that is read-only
    except OSError as problem:
        raise SettingsInvalid(
            f"{PREFIX}{name.upper()} is wrong: {directory} is no directory to write to ({problem.strerror})."
        ) from problem
