"""Errors over HTTP: every exception becomes a problem document (RFC 9457) here and nowhere else."""

import errno
import logging
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from model.errors import BackendUnavailable, CarsearchError, EmbeddingInvalid
from service.errors import InvalidRequest, MalformedJson, MalformedMultipart, Overloaded, Unauthorized
from service.http.context import RequestContext
from service.http.schemas import Problem

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL = 300
RETRY_AFTER_S = {429: 1, 503: 2}
"""Status -> seconds after which another try may help."""

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
"""What the system says when the machine is out of files, disk or memory, which passes."""

NO_THREAD = "can't start new thread"  # what Python says then, as a RuntimeError without a number
INTERNAL = "The server failed; the request id finds the reason in its log."

log = logging.getLogger("carsearch")


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


def problem(context: RequestContext, status: int, code: str, detail: str) -> Response:
    """The one error shape, with Retry-After where another try may help; the context learns the code."""
    context.code = code
    response = ProblemResponse(problem_body(status, code, detail, context.request_id), status)
    if status in RETRY_AFTER_S:
        response.headers["Retry-After"] = str(RETRY_AFTER_S[status])
    if status == Unauthorized.status:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def problem_body(status: int, code: str, detail: str, request_id: str) -> dict[str, str | int]:
    """As `Problem` says; the model itself would take as long as the rest of a refusal's JSON.

    A surrogate in the detail, which UTF-8 lacks, becomes a question mark.
    """
    return {
        "type": f"urn:carsearch:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail[:MAX_DETAIL].encode("utf-8", "replace").decode(),
        "code": code,
        "request_id": request_id,
    }


def response_to(error: Exception, context: RequestContext) -> Response:
    """Answers any exception; one that no client can have caused is logged and told as `internal`."""
    match error:
        case CarsearchError():
            return _domain_error(error, context)
        case RequestValidationError():
            return _invalid_request(error, context)
        case HTTPException():
            return _http_exception(error, context)
        case ClientDisconnect():  # nobody reads the answer; it is counted
            return problem(context, 400, "client_disconnected", "The client went away.")
        case OSError() | RuntimeError() if is_exhausted(error):
            log.error("request %s cannot be worked on: %s", context.request_id, error)
            detail = "The server has no room for this request now; try again later."
            return problem(context, 429, Overloaded.code, detail)
        case _:
            log.error("request %s failed", context.request_id, exc_info=error)
            return problem(context, 500, "internal", INTERNAL)


def is_exhausted(error: BaseException | None) -> bool:
    """Whether the machine was out of files, disk, memory or threads."""
    return getattr(error, "errno", None) in EXHAUSTED or str(error) == NO_THREAD


def _domain_error(error: CarsearchError, context: RequestContext) -> Response:
    if error.status is None or isinstance(error, EmbeddingInvalid | BackendUnavailable):  # no client's fault
        log.error("request %s failed: %s: %s", context.request_id, error.code, error, exc_info=error)
    if error.status is None:
        return problem(context, 500, "internal", INTERNAL)
    if error.__cause__ is not None:  # for the log: a decoder that ran out of memory is no ordinary damaged photo
        context.cause = type(error.__cause__).__name__
    _drop_frames(error)
    return problem(context, error.status, error.code, str(error))


def _drop_frames(error: BaseException | None) -> None:
    """Takes the frames from an error and its causes.

    They hold the photo and its pixels, up to 150 MB, and the task that holds the error: a cycle that would stay until
    the garbage collector comes. An error may be its own cause: Milvus's client raises such ones.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _invalid_request(error: RequestValidationError, context: RequestContext) -> Response:
    """Names the parameter and the rule and never the value, which may be anything, in any encoding."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    if where[-1] == "k":
        return problem(context, 422, "invalid_k", "k must be a whole number from 1 to 100.")
    if first["type"] == "json_invalid":
        return problem(context, 400, MalformedJson.code, "The body is not valid JSON.")
    return problem(context, 422, InvalidRequest.code, f"{' '.join(where)[:100]}: {first['msg']}.")


def _http_exception(error: HTTPException, context: RequestContext) -> Response:
    told = {
        400: (MalformedMultipart.code, str(error.detail)),
        404: ("not_found", "There is nothing at this address."),
        405: ("method_not_allowed", "This address does not take that method."),
    }
    status = error.status_code if error.status_code in told else 500
    response = problem(context, status, *told.get(status, ("internal", INTERNAL)))
    if status == 405:  # Starlette tells the methods of the first route at an address, and another may take others
        response.headers["Allow"] = ", ".join(context.route.methods)
    return response


async def handle(request: Request, error: Exception) -> Response:
    """`response_to` as an exception handler of FastAPI, for the errors that it would answer itself."""
    return response_to(error, request.scope["context"])


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documents the error answers of a route; "default" stands for all others."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    all_statuses: tuple[int | str, ...] = (*statuses, "default")
    return {status: {"description": "See `code`.", "content": dict(content)} for status in all_statuses}
