"""Liveness, readiness, metrics, and what is served."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool

from service import __version__
from service.errors import Draining, NotReady
from service.http.context import rules
from service.http.errors import problems
from service.http.schemas import Info
from service.http.state import State

router = APIRouter(tags=["operation"])


@router.head("/livez", include_in_schema=False)
@router.get("/livez", responses=problems())
@rules(polled=True)
async def livez() -> dict[str, str]:
    """200 as long as the event loop answers."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=problems(503))
@rules(polled=True)
async def readyz(request: Request) -> dict[str, str]:
    """200 when model and index are loaded, verified, and gave the golden photo's embedding; else 503 `not_ready`.

    After SIGTERM 503 `draining`: searches are still answered, but new ones should go elsewhere.
    """
    state: State = request.app.state.parts
    if state.draining.is_set():
        raise Draining("The server is about to stop; ask another one.")
    if state.reloader.loaded is None:
        raise NotReady(state.reloader.why_not)
    return {"status": "ok"}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
@rules(polled=True)
async def metrics(request: Request) -> Response:
    """Prometheus metrics of this process."""
    state: State = request.app.state.parts
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/info", responses=problems())
@rules(key_scope="search")
async def info(request: Request) -> Info:
    """Versions of everything that is served."""
    state: State = request.app.state.parts
    engine = state.reloader.loaded
    return Info(
        version=__version__,
        ready=engine is not None,
        versions=engine.versions if engine else None,
        photos=engine.photos if engine else 0,
        classes=len(await run_in_threadpool(engine.classes)) if engine else 0,
        runtime=engine.embedder.runtime.name if engine else None,
        precision=engine.embedder.runtime.precision if engine else None,
        index_created=engine.manifest.created if engine else None,
        serving_since=state.reloader.since,
        datasets=sorted(state.settings.datasets),
        metadata={column.name: column.kind for column in engine.columns} if engine else {},
        may_change=request.scope["context"].admin and state.reloader.delta is not None,
        refused_version=state.reloader.refused_version,
    )
