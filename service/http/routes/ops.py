"""Is it up, can it answer, what is it serving."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service import __version__
from service.http.errors import Draining, problems
from service.http.schemas import Health, Info
from service.http.state import ServerState

router = APIRouter(tags=["operation"])


@router.get("/livez", responses=problems())
async def livez() -> Health:
    """200 as long as the event loop answers."""
    return Health()


@router.get("/readyz", responses=problems(503))
async def readyz(state: ServerState) -> Health:
    """200 when model and index are loaded, verified, and gave the golden photo's embedding; else 503 `not_ready`.

    After SIGTERM 503 `draining`: searches are still answered, but new ones should go elsewhere.
    """
    if state.drain.begun:
        raise Draining("The server is about to stop; ask another one.")
    _ = state.serving.engine  # raises NotReady
    return Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def metrics(state: ServerState) -> Response:
    """Prometheus metrics of this process."""
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/info", responses=problems())
async def info(state: ServerState) -> Info:
    """Versions of everything that is served."""
    engine = state.serving.loaded
    return Info(
        version=__version__,
        ready=engine is not None,
        versions=engine.versions if engine else None,
        photos=len(engine.store) if engine else 0,
        classes=int(engine.manifest.gallery["classes"]) if engine else 0,
        runtime=engine.embedder.runtime.name if engine else None,
        precision=engine.embedder.runtime.precision if engine else None,
        index_created=engine.manifest.created if engine else None,
        datasets=sorted(state.settings.datasets),
        refused_version=state.serving.refused_version,
    )
