"""The HTTP application: its parts, routes and middlewares."""

import logging
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from indexer.stores.faiss import refuse_two_distributions
from model.errors import SettingsInvalid
from service import __version__
from service.batching import Batcher
from service.http import errors
from service.http.access_log import AccessLog, RouteTable
from service.http.admission import Admission, FairShare
from service.http.auth import Auth, Key, read_keys
from service.http.body_limit import BodyLimit
from service.http.cors import Cors
from service.http.document import describe
from service.http.limits import Limits
from service.http.links import ImageLinks, read_secret
from service.http.proxies import own_path
from service.http.routes import changes, duplicates, evaluate, gallery, ops, page, search
from service.http.state import State
from service.http.workers import Workers
from service.jobs import Evaluations
from service.observability.metrics import Metrics
from service.reloader import Reloader
from service.settings import PREFIX, Settings

END_S = 5
"""By then everything has been answered, and an evaluation stops within a batch."""

log = logging.getLogger("carsearch")

ROUTERS = [module.router for module in (search, evaluate, gallery, duplicates, changes, ops, page)]
API_ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
DESCRIPTION = "Errors have one shape, `application/problem+json`, with a stable `code`."
TAGS = [
    {"name": "search", "description": "A photo in, the nearest photos of the gallery out."},
    {"name": "evaluation", "description": "How often the nearest photo is of the right class."},
    {"name": "gallery", "description": "The photos that are searched."},
    {"name": "operation", "description": "Probes, metrics, and what is served."},
]


def create_app(settings: Settings, draining: threading.Event | None = None, limits: Limits | None = None) -> FastAPI:
    """A server for one index directory; it is live at once, and ready from when the index is loaded until it drains.

    Raises SettingsInvalid for keys or directories that cannot be used.
    """
    refuse_two_distributions()
    _assert_usable(settings)
    keys = read_keys(settings.keys_file) if settings.keys_file else []
    links = ImageLinks(read_secret(settings.link_secret_file) if keys else None)
    places = FairShare(settings.search_threads + settings.max_queue)
    state = _make_state(settings, draining or threading.Event(), limits or Limits(), places, links)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        state.reloader.start()
        yield
        _end_threads(state)
        state.reloader.stop()

    # OpenTelemetry's own variables say where traces go (`carsearch[otel]`).
    polled = RouteTable(ops.router.routes)
    traced = any(name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ)
    # The documents' scripts come from the package and not from a content network.
    app = FastAPIOffline(
        title="carsearch",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=TAGS,
        generate_unique_id_function=lambda route: route.name,  # the endpoint's name, which clients call theirs
        redoc_url=None,
        lifespan=lifespan,
        telemetry=TelemetryConfig(
            tracing=traced,
            auto_configure=traced,
            metrics=False,
            logs=False,
            operation_spans=False,
            exclude=lambda scope: polled.find(own_path(scope)).rules.polled,
        ),
    )
    app.state.parts = state
    for router in ROUTERS:
        app.include_router(router)

    for error in (HTTPException, RequestValidationError):  # which FastAPI would answer in its own shape
        app.add_exception_handler(error, errors.handle)
    app.openapi = cache(lambda: describe(app, API_ROUTES, bool(keys), settings.root_path))  # type: ignore[method-assign]
    _add_middlewares(app, state, keys, places)
    return app


def _add_middlewares(app: FastAPI, state: State, keys: Sequence[Key], places: FairShare) -> None:
    """The last one added is the outermost."""
    settings = state.settings
    memory = FairShare(settings.max_uploads_bytes)
    app.add_middleware(Admission, places=places, memory=memory)
    app.add_middleware(BodyLimit, max_body_bytes=settings.max_body_bytes, limits=state.limits)
    app.add_middleware(Auth, keys=keys, links=state.links)
    app.add_middleware(AccessLog, routes=RouteTable([*app.routes, *API_ROUTES]), state=state)
    if settings.cors_origins:
        app.add_middleware(Cors, origins=[origin.strip() for origin in settings.cors_origins.split(",")])


def _make_state(
    settings: Settings, draining: threading.Event, limits: Limits, places: FairShare, links: ImageLinks
) -> State:
    metrics = Metrics()
    metrics.draining.set_function(lambda: draining.is_set())
    workers = Workers(settings.search_threads, places, settings.request_deadline_s, metrics)
    return State(
        settings=settings,
        limits=limits,
        metrics=metrics,
        reloader=Reloader(settings, metrics),
        workers=workers,
        batcher=Batcher(workers.threads, metrics),
        evaluations=Evaluations(settings.state_dir, metrics, lambda: workers.busy),
        links=links,
        draining=draining,
    )


def _end_threads(state: State) -> None:
    """Waits for the record of an evaluation, and for no work thread: what one still does nobody waits for."""
    ending = threading.Thread(target=state.evaluations.close, daemon=True)
    ending.start()
    ending.join(END_S)
    state.workers.close()
    state.batcher.close()


def _assert_usable(settings: Settings) -> None:
    """Checks directories when the server starts; raises SettingsInvalid."""
    for name in ("spool_dir", "state_dir", "cache_dir", "delta_dir"):
        directory: Path | None = getattr(settings, name)
        if directory is None:
            continue
        try:
            if name != "spool_dir":
                directory.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()  # permission bits do not tell of a read-only file system
        except OSError as problem:
            raise SettingsInvalid(
                f"{PREFIX}{name.upper()} is wrong: {directory} is no directory to write to ({problem.strerror})."
            ) from problem
    if settings.gallery_dir is not None and not settings.gallery_dir.is_dir():
        raise SettingsInvalid(f"{PREFIX}GALLERY_DIR is wrong: {settings.gallery_dir} is no directory.")
    for name, path in settings.datasets.items():
        if not path.exists():
            raise SettingsInvalid(f"{PREFIX}DATASETS is wrong: there is nothing at {path}, the path of {name}.")
