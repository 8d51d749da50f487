"""POST /search and POST /search/batch: a photo in, the nearest photos of the gallery out."""

import asyncio
import json
import time
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from opentelemetry.trace import get_current_span, get_tracer
from starlette.requests import ClientDisconnect

from model.errors import FileUnreadable, ImageRejected, UnknownItem
from model.types import Rows
from service import __version__
from service.engine import Engine, SearchResult
from service.engine import Query as EngineQuery
from service.errors import DeadlineExceeded, PayloadTooLarge
from service.explain import EXPLAINED, Explainer
from service.http.context import RequestContext, rules
from service.http.errors import problems, response_to
from service.http.parameters import StrictRoute, documented
from service.http.schemas import BatchResponse, SearchResponse
from service.http.search_parameters import ExplainedQuery, SearchQuery
from service.http.source import BODY, PHOTO, PHOTO_TYPES, JsonBody, receive_source
from service.http.state import State, engine_of
from service.http.upload import Photo, multipart_body, receive_photos
from service.http.workers import done_while_connected

router = APIRouter(tags=["search"], route_class=StrictRoute)
TRACER = get_tracer("carsearch", __version__)
GONE = FileUnreadable, ImageRejected, UnknownItem
"""Errors for a photo of the gallery that has changed or gone since it was indexed."""


@router.post(
    "/search",
    response_model=SearchResponse,
    openapi_extra={"parameters": documented(ExplainedQuery), "requestBody": {"required": True, "content": BODY}},
    responses=problems(400, 404, 408, 413, 415, 422, 429, 503),
)
@rules(key_scope="search", upload="photo")
async def search(request: Request) -> Response:
    """Finds the photos of the gallery that are nearest to the one that is sent, best first.

    The photo comes as the file of a form, as the body itself, or in base64 in JSON; JSON may also name a photo of the
    gallery, which is then left out of the answer.
    """
    state: State = request.app.state.parts
    context: RequestContext = request.scope["context"]
    asked, engine = ExplainedQuery.of(request), engine_of(request)
    source = await receive_source(request)
    received, received_ns = time.perf_counter(), time.time_ns()

    queries: list[EngineQuery] = []

    def ask() -> EngineQuery:
        photo_or_id = source.read(state.settings.max_body_bytes) if isinstance(source, JsonBody) else source
        queries.append(asked.query(engine, photo_or_id, asked.rows(engine)))
        return queries[-1]

    result = await state.workers.answer(state.batcher.search(engine, ask), request)
    stages_ms = _stages(state, received, result)
    context.stages_ms = {stage: value for stage, value in stages_ms.items() if stage != "total"}
    _trace_stages(received_ns, context.stages_ms)
    answer = _answer(request, engine, asked, result, stages_ms)
    if asked.explain:
        explanations = await _explanations(request, engine, queries[-1], answer["results"])
        for place, hit in enumerate(answer["results"]):
            hit["explanation"] = explanations[place] if place < len(explanations) else None
    return JSONResponse(answer)


async def _explanations(
    request: Request, engine: Engine, query: EngineQuery, hits: list[dict[str, Any]]
) -> list[dict[str, Any] | None]:
    """Why the first hits match: each takes a work place and a thread, as a search does; None for a photo that is gone.

    None at all are explained when the query is a photo of the gallery that is gone.
    """
    workers = request.app.state.parts.workers
    try:
        explainer = await workers.run(partial(Explainer, engine, query), request)
    except GONE:
        return []
    told = partial(_explanation, explainer, engine.embedder.card.input.square)
    return [await workers.run(partial(told, hit["id"]), request) for hit in hits[:EXPLAINED]]


def _explanation(explainer: Explainer, square: float | None, identity: str) -> dict[str, Any] | None:
    try:
        found = explainer.explain(identity)
    except GONE:
        return None
    query, hit = (heat.astype(float).round(6).tolist() for heat in (found.query, found.hit))
    return {"query": query, "hit": hit, "constant": found.constant, "square": square}


@router.post(
    "/search/batch",
    response_model=BatchResponse,
    openapi_extra={
        "parameters": documented(SearchQuery),
        "requestBody": {
            "required": True,
            "content": multipart_body("file", PHOTO_TYPES, PHOTO, several=True),
        },
    },
    responses=problems(400, 408, 413, 415, 422, 429, 503),
)
@rules(key_scope="search", upload="photos")
async def search_batch(request: Request) -> Response:
    """Searches for up to 64 photos of one form, all with the same parameters; each has its own result or problem.

    The answers have the order of the parts, which are all named `file`; together they may have 32 MiB.
    """
    state: State = request.app.state.parts
    asked, engine = SearchQuery.of(request), engine_of(request)
    photos = await receive_photos(request, state.limits.batch_photos, state.settings.max_body_bytes)
    rows = None
    if asked.classes or asked.where is not None:  # what is wrong with these is wrong for the whole batch
        rows = await state.workers.run(lambda: asked.rows(engine), request)
    # No more at a time than there are threads: other searches wait for those at most.
    turns = asyncio.Semaphore(state.settings.search_threads)
    ends = asyncio.get_running_loop().time() + state.limits.batch_deadline_s
    results = asyncio.gather(*(_result_of(photo, request, engine, asked, rows, turns, ends) for photo in photos))
    try:
        if not await done_while_connected(request, results):
            raise ClientDisconnect
        return JSONResponse({"results": await results})
    finally:
        results.cancel()


async def _result_of(
    photo: Photo,
    request: Request,
    engine: Engine,
    asked: SearchQuery,
    rows: Rows | None,
    turns: asyncio.Semaphore,
    ends: float,
) -> dict[str, Any]:
    """The entry of one photo of a batch; its bytes are let go."""
    state: State = request.app.state.parts
    try:
        async with asyncio.timeout_at(ends), turns:
            began, most = time.perf_counter(), state.settings.max_body_bytes
            if photo.size_bytes > most:
                raise PayloadTooLarge(f"The photo is larger than {most} bytes.")
            search = state.batcher.search(engine, lambda: asked.query(engine, bytes(photo.data), rows))
            result = await state.workers.answer(search, request, watched=False)
            stages_ms = _stages(state, began, result)
            state.metrics.batch_answers.labels("ok").inc()
            return {"name": photo.name, "result": _answer(request, engine, asked, result, stages_ms)}
    except TimeoutError:
        return _problem_of(photo, request, DeadlineExceeded("The batch took too long; send fewer photos at once."))
    except Exception as error:
        return _problem_of(photo, request, error)
    finally:
        photo.data.clear()


def _problem_of(photo: Photo, request: Request, error: Exception) -> dict[str, Any]:
    """The entry of a photo that was refused; the request itself goes on well."""
    state: State = request.app.state.parts
    problem = json.loads(bytes(response_to(error, replace(request.scope["context"])).body))
    state.metrics.batch_answers.labels(problem["code"]).inc()
    return {"name": photo.name, "problem": problem}


def _stages(state: State, began: float, result: SearchResult) -> dict[str, float]:
    """The milliseconds of each stage and of all, which are counted."""
    total_ms = (time.perf_counter() - began) * 1000
    queue_ms = max(0.0, total_ms - sum(result.stages_ms.values()))
    stages_ms = {"queue": queue_ms, **result.stages_ms, "total": total_ms}
    for stage, milliseconds in stages_ms.items():
        state.metrics.stage_seconds.labels(stage).observe(milliseconds / 1000)
    return stages_ms


def _answer(
    request: Request, engine: Engine, asked: SearchQuery, result: SearchResult, stages_ms: dict[str, float]
) -> dict[str, Any]:
    """A `SearchResponse`, made by hand: models of pydantic would take a tenth of the event loop's time."""
    state: State = request.app.state.parts
    hits = [
        {
            "rank": hit.rank,
            "id": hit.id,
            "class": hit.label or None,
            "score": hit.score,
            "image": state.links.link(hit.id, request.scope["root_path"]),
            "metadata": hit.metadata,
        }
        for hit in result.found.hits
    ]
    wanted = state.settings.precision if asked.precision is None else asked.precision
    return {
        "nearest": hits[0] if hits else None,
        "results": hits,
        "decision": engine.outcome(result.found, wanted),
        "versions": vars(engine.versions),
        "timings_ms": {stage: round(milliseconds, 3) for stage, milliseconds in stages_ms.items()},
    }


def _trace_stages(begun_ns: int, stages_ms: dict[str, float]) -> None:
    """A span for each stage, below the request's; they follow each other without a gap."""
    if not get_current_span().is_recording():
        return
    for stage, milliseconds in stages_ms.items():
        ended_ns = begun_ns + round(milliseconds * 1_000_000)
        TRACER.start_span(stage, start_time=begun_ns).end(ended_ns)
        begun_ns = ended_ns
