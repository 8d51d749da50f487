"""POST /search: a photo in, the nearest photos of the gallery out."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from opentelemetry.trace import get_tracer

from service import __version__
from service.engine import MAX_K
from service.errors import NotReady
from service.http.context import RequestContext, rules
from service.http.errors import problems
from service.http.schemas import SearchResponse
from service.http.state import State
from service.http.upload import multipart_body, receive_photo

router = APIRouter(tags=["search"])
TRACER = get_tracer("carsearch", __version__)

FILE_BODY = multipart_body("file", "image/jpeg, image/png, image/webp", "JPEG, PNG or WebP")


@router.post(
    "/search",
    response_model=SearchResponse,
    openapi_extra={"requestBody": {"required": True, "content": FILE_BODY}},
    responses=problems(400, 408, 413, 415, 422, 429, 503),
)
@rules(key_scope="search", upload="photo")
async def search(
    request: Request,
    k: Annotated[int, Query(ge=1, le=MAX_K, description="How many photos to return.")] = 5,
    class_: Annotated[
        list[str] | None, Query(alias="class", max_length=MAX_K, description="Only photos of these classes.")
    ] = None,
    precision: Annotated[
        float | None, Query(ge=0.5, le=0.99, description="How often a class that is named must be right.")
    ] = None,
) -> Response:
    """Finds the photos of the gallery that are nearest to the uploaded one, best first."""
    state: State = request.app.state.parts
    context: RequestContext = request.scope["context"]
    if (engine := state.reloader.loaded) is None:
        raise NotReady(state.reloader.why_not)
    context.index = engine.manifest.id
    data = await receive_photo(request)
    received, received_ns = time.perf_counter(), time.time_ns()
    search = state.batcher.search(engine, data, k, class_ or ())
    result = await state.workers.answer(search, request)
    total_ms = (time.perf_counter() - received) * 1000
    queue_ms = max(0.0, total_ms - sum(result.stages_ms.values()))
    context.stages_ms = {"queue": queue_ms, **result.stages_ms}
    _trace_stages(received_ns, context.stages_ms)
    stages_ms = {**context.stages_ms, "total": total_ms}
    for stage, milliseconds in stages_ms.items():
        state.metrics.stage_seconds.labels(stage).observe(milliseconds / 1000)
    # Made by hand: models of pydantic would take a tenth of the event loop's time.
    hits = [
        {"rank": hit.rank, "id": hit.id, "class": hit.label, "score": hit.score, "image": _image_path(request, hit.id)}
        for hit in result.found.hits
    ]
    timings_ms = {stage: round(milliseconds, 3) for stage, milliseconds in stages_ms.items()}
    wanted = state.settings.precision if precision is None else precision
    answer = {"nearest": hits[0] if hits else None, "results": hits, "decision": engine.outcome(result.found, wanted)}
    return JSONResponse({**answer, "versions": vars(engine.versions), "timings_ms": timings_ms})


def _trace_stages(begun_ns: int, stages_ms: dict[str, float]) -> None:
    """A span for each stage, below the request's; they follow each other without a gap."""
    for stage, milliseconds in stages_ms.items():
        ended_ns = begun_ns + round(milliseconds * 1_000_000)
        TRACER.start_span(stage, start_time=begun_ns).end(ended_ns)
        begun_ns = ended_ns


def _image_path(request: Request, identity: str) -> str:
    state: State = request.app.state.parts
    return state.links.link(identity, request.scope["root_path"])
