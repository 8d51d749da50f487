"""POST /evaluate: the benchmark on an uploaded archive or a set that the settings name."""

import asyncio
import contextlib
import tempfile
from dataclasses import replace
from typing import Annotated, Any, BinaryIO, Literal, cast

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from model.archive import read_archive
from model.dataset import read_labelled
from model.errors import DataInvalid, EvaluationTooLarge, UnknownDataset
from service.errors import InvalidRequest, MalformedJson, NotAcceptable, UnsupportedContentType
from service.http.accept import wanted
from service.http.context import media_type, rules
from service.http.errors import problems
from service.http.parameters import StrictRoute
from service.http.schemas import DatasetRequest, EvaluationList
from service.http.state import State, engine_of
from service.http.upload import multipart_body, receive_archive
from service.http.workers import done_while_connected
from service.jobs import KEPT_PAGES, Ended, EvaluationInput, EvaluationRecord, new_record
from service.report.build import POLICY

router = APIRouter(tags=["evaluation"], route_class=StrictRoute)

Mode = Literal["leave-one-out", "gallery"]

BODY = multipart_body("archive", "application/zip, application/x-tar", "zip or tar of class folders") | {
    "application/json": {"schema": {"$ref": f"#/components/schemas/{DatasetRequest.__name__}"}}
}

PAGE: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
"""What a client gets that sends `Accept: text/html`."""

HEADERS = {
    "Content-Security-Policy": f"sandbox; frame-ancestors 'none'; {POLICY}",
    "Cache-Control": "no-store",  # its address has JSON, too
    "Referrer-Policy": "no-referrer",
}
"""Of that page: names and photos in it are whatever somebody sent."""

NO_PAGE = (
    "There is no HTML report of this evaluation: it is made where POST /evaluate was sent with Accept: text/html, and "
    f"the last {KEPT_PAGES} are kept."
)
NOT_YET = "The evaluation is not done yet; its HTML report is there when it is."


@router.post(
    "/evaluate",
    openapi_extra={"requestBody": {"required": True, "content": BODY}},
    responses={
        200: {"description": "The report.", "content": {"application/json": {"schema": {"type": "object"}}, **PAGE}},
        202: {"model": EvaluationRecord},
        **problems(400, 404, 408, 413, 415, 422, 429, 503),
    },
)
@rules(key_scope="admin", upload="archive")
async def evaluate(
    request: Request,
    mode: Annotated[Mode, Query(description="The benchmark, or against the served gallery.")] = "leave-one-out",
    predictions: Annotated[bool, Query(description="Add (query id, nearest id) pairs.")] = False,
    class_depth: Annotated[
        int | None, Query(ge=1, le=9, description="Which folder names the class: 1 is the one at the top.")
    ] = None,
    prefer: Annotated[str, Header(description="How to be answered.", examples=["respond-async"])] = "",
) -> Response:
    """Runs the top-1 benchmark. With `Prefer: respond-async` it goes on in the background: 202 and a Location.

    With `Accept: text/html` the report is a page with pictures, here or at that Location.
    """
    state: State = request.app.state.parts
    engine = engine_of(request)
    background, html = "respond-async" in prefer.lower(), wanted(request.headers.get("accept", "")).html
    with state.evaluations.reserved():  # before the body: nobody uploads an archive to learn that the server is busy
        data = await _read_set(request, state, class_depth)
        if not background and len(data.photos) > state.limits.sync_photos:
            data.close.close()
            most = state.limits.sync_photos
            raise EvaluationTooLarge(f"The set has {len(data.photos)} photos; above {most} send Prefer: respond-async.")
        if background and await request.is_disconnected():  # it was cancelled while the archive was read
            data.close.close()
            raise ClientDisconnect
        record = new_record(mode, len(data.photos))
        running = await state.evaluations.run(record, replace(data, html=html), engine)
    if background:
        location = f"{request.scope['root_path']}/evaluations/{record.id}"
        headers = {"Location": location, "Preference-Applied": "respond-async"}
        return JSONResponse(record.model_dump(mode="json", exclude_none=True), 202, headers)
    return await _answer_of(request, state, record.id, running, predictions)


@router.get("/evaluations", responses=problems())
@rules(key_scope="admin")
async def list_evaluations(request: Request) -> EvaluationList:
    """The evaluations of all replicas, newest first; the last 100 are kept."""
    state: State = request.app.state.parts
    return EvaluationList(evaluations=await run_in_threadpool(state.evaluations.summaries))


@router.get(
    "/evaluations/{identity}",
    response_model=EvaluationRecord,
    responses={200: {"content": PAGE}, **problems(404, 406)},
)
@rules(key_scope="admin")
async def get_evaluation(request: Request, identity: str) -> EvaluationRecord | Response:
    """How far an evaluation is, and its report when it is done; with `Accept: text/html` as a page, if it has one."""
    state: State = request.app.state.parts
    taken = wanted(request.headers.get("accept", ""))
    if taken.html:
        page = await run_in_threadpool(state.evaluations.read_html, identity)
        if page is not None:
            return _page(page, identity)
    record = await run_in_threadpool(state.evaluations.read, identity)
    if taken.html and not taken.json:
        raise NotAcceptable(NOT_YET if record.status == "running" else NO_PAGE)
    return record


@router.delete("/evaluations/{identity}", status_code=202, responses=problems(404))
@rules(key_scope="admin")
async def cancel_evaluation(request: Request, identity: str) -> EvaluationRecord:
    """Stops an evaluation within one batch."""
    state: State = request.app.state.parts
    return await run_in_threadpool(state.evaluations.cancel, identity)


async def _answer_of(
    request: Request, state: State, identity: str, running: "asyncio.Future[Ended]", predictions: bool
) -> Response:
    if not await done_while_connected(request, running):
        await run_in_threadpool(state.evaluations.cancel, identity)
    ended = await running
    if ended.error is not None:
        raise ended.error
    if ended.record.report is None:  # it was cancelled
        raise ClientDisconnect
    if ended.html is not None:
        return _page(ended.html, identity)
    pairs = {"predictions": ended.record.predictions} if predictions else {}
    return JSONResponse({**ended.record.report, **pairs})


def _page(html: str | bytes, identity: str) -> Response:
    """An HTML report; saved, it has the evaluation's name."""
    named = {"Content-Disposition": f'inline; filename="evaluation-{identity}.html"'}
    return HTMLResponse(html, headers={**HEADERS, **named})


async def _read_set(request: Request, state: State, class_depth: int | None) -> EvaluationInput:
    kind = media_type(request.scope)
    if kind == "application/json":
        return await _named_set(request, state, class_depth)
    if kind == "multipart/form-data":
        return await _uploaded_set(request, state, class_depth)
    raise UnsupportedContentType('Send multipart/form-data with a file named "archive", or JSON with a "dataset".')


async def _named_set(request: Request, state: State, class_depth: int | None) -> EvaluationInput:
    try:
        name = DatasetRequest.model_validate_json(await request.body()).dataset
    except ValidationError as problem:
        broken = problem.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid"
        kind = MalformedJson if broken else InvalidRequest
        raise kind('The body must be {"dataset": "<name>"}.') from problem
    if name not in state.settings.datasets:
        raise UnknownDataset("There is no data set with this name; GET /info lists them.")
    path = state.settings.datasets[name]
    try:
        found = await run_in_threadpool(read_labelled, path, class_depth=class_depth)
    except DataInvalid as problem:  # the client knows the set by its name; where it lies is not told
        raise type(problem)(str(problem).replace(str(path), f'"{name}"')) from problem
    return EvaluationInput(found.items, found.skipped, contextlib.ExitStack(), name)


async def _uploaded_set(request: Request, state: State, class_depth: int | None) -> EvaluationInput:
    with contextlib.ExitStack() as stack:
        # An unlinked file: whatever ends this process ends the file too.
        sink = cast(BinaryIO, tempfile.TemporaryFile(dir=state.settings.spool_dir))  # noqa: SIM115  # closed below
        stack.callback(_close, sink)
        await receive_archive(request, sink)
        sink.seek(0)
        photos, skipped = await run_in_threadpool(read_archive, sink, state.limits.archive, class_depth)
        return EvaluationInput(photos, skipped, stack.pop_all(), "an uploaded archive")


def _close(sink: BinaryIO) -> None:
    with contextlib.suppress(OSError):  # what a full disk did not take is tried once more and would hide the reason
        sink.close()
