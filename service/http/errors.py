"""Errors over HTTP: domain errors become statuses here and nowhere else, all in one shape (RFC 9457)."""

import errno
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from model.errors import CarsearchError
from service.http.schemas import Problem

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL = 300
FULL = "The server has more searches than it can answer; try again in a moment."
USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
"""What the system says when the machine is out of files, disk or memory, which passes."""

NO_THREAD = "can't start new thread"  # what Python says then, as a RuntimeError without a number

log = logging.getLogger("carsearch")


class RequestRefused(CarsearchError):
    """Base of the errors that only HTTP knows."""


class MalformedMultipart(RequestRefused):
    code = "malformed_multipart"


class MalformedJson(RequestRefused):
    code = "malformed_json"


class InvalidRequest(RequestRefused):
    code = "invalid_request"


class MissingFile(RequestRefused):
    code = "missing_file"


class MultipleFiles(RequestRefused):
    code = "multiple_files"


class UnsupportedContentType(RequestRefused):
    code = "unsupported_content_type"


class PayloadTooLarge(RequestRefused):
    code = "payload_too_large"


class UploadTimeout(RequestRefused):
    code = "upload_timeout"


class Overloaded(RequestRefused):
    code = "overloaded"


class Unauthorized(RequestRefused):
    code = "unauthorized"


class Forbidden(RequestRefused):
    code = "forbidden"


class RateLimited(RequestRefused):
    """A client has sent more than its rate allows; it may send again after `retry_after_s`."""

    code = "rate_limited"

    def __init__(self, sentence: str, retry_after_s: int) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestRefused):
    code = "deadline_exceeded"


class NotReady(RequestRefused):
    code = "not_ready"


class Draining(RequestRefused):
    code = "draining"


class UnknownEvaluation(RequestRefused):
    code = "unknown_evaluation"


STATUS_OF = {
    "malformed_multipart": 400,
    "malformed_json": 400,
    "client_disconnected": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "unknown_dataset": 404,
    "unknown_item": 404,
    "unknown_evaluation": 404,
    "method_not_allowed": 405,
    "upload_timeout": 408,
    "evaluation_too_large": 413,
    "payload_too_large": 413,
    "archive_too_large": 413,
    "unsupported_content_type": 415,
    "unsupported_image_format": 415,
    "unsupported_archive": 415,
    "missing_file": 422,
    "multiple_files": 422,
    "empty_file": 422,
    "invalid_k": 422,
    "invalid_request": 422,
    "unknown_class": 422,
    "image_undecodable": 422,
    "image_too_many_pixels": 422,
    "image_degenerate": 422,
    "archive_invalid": 422,
    "archive_unsafe_path": 422,
    "archive_bomb": 422,
    "evaluation_set_invalid": 422,
    "duplicate_id": 422,
    "gallery_empty": 422,
    "manifest_invalid": 422,
    "data_invalid": 422,
    "overloaded": 429,
    "rate_limited": 429,
    "internal": 500,
    "embedding_invalid": 500,
    "not_ready": 503,
    "draining": 503,
    "deadline_exceeded": 503,
    "backend_unavailable": 503,
}
"""Code -> status. A code that is not here is a failure of the server and answers 500 `internal`."""

RETRY_AFTER_S = {
    "overloaded": 1,
    "rate_limited": 1,
    "not_ready": 2,
    "draining": 2,
    "deadline_exceeded": 2,
    "backend_unavailable": 2,
}
FAILURES = ("embedding_invalid", "backend_unavailable")
"""Codes of their own that users cannot have caused all the same: the log says more."""

TITLES = {status: HTTPStatus(status).phrase for status in STATUS_OF.values()}
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class ProblemResponse(Response):
    """An error's answer, made of what all answers of its kind have in common and the id of the request."""

    def __init__(self, kind: "_Kind", request_id: str) -> None:
        # Not Response's own, which encodes every header anew: thousands a second are refused when there are too many.
        self.status_code, self.background = kind.status, None
        self.body = kind.before_id + request_id.encode() + kind.after_id
        self.raw_headers = [*kind.headers, (b"content-length", b"%d" % len(self.body))]


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    before_id: bytes
    after_id: bytes


def problem_response(request_id: str, code: str, detail: str, error: Exception | None = None) -> Response:
    """The one error shape, with Retry-After where trying again may help; the `error` may know after how long."""
    again_s = getattr(error, "retry_after_s", RETRY_AFTER_S[code]) if code in RETRY_AFTER_S else None
    return ProblemResponse(_kind_of(code, detail, again_s), request_id)


@lru_cache(maxsize=64)
def _kind_of(code: str, detail: str, again_s: int | None) -> _Kind:
    status = STATUS_OF[code]
    body = {  # as `Problem` has it
        "type": f"urn:carsearch:error:{code}",
        "title": TITLES[status],
        "status": status,
        "detail": detail[:MAX_DETAIL],
        "code": code,
        "request_id": "",
    }
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    if again_s is not None:
        headers.append((b"retry-after", b"%d" % again_s))
    if code == Unauthorized.code:
        headers.append((b"www-authenticate", b"Bearer"))
    whole = to_json(body).encode()  # the id comes last, and has no character that JSON would write differently
    return _Kind(status, tuple(headers), whole.removesuffix(b'"}'), b'"}')


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documents error answers of a route in the one shape they have; "default" stands for all others."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    all_statuses: tuple[int | str, ...] = (*statuses, "default")
    return {status: {"description": "See `code`.", "content": content} for status in all_statuses}


def problem_of(request: Request, error: CarsearchError) -> Response:
    """Answers a domain error; one that users cannot have caused is logged, and told as `internal` or by its code."""
    if error.code not in STATUS_OF or error.code in FAILURES:
        log.error("request %s failed: %s: %s", request_id_of(request), error.code, error, exc_info=error)
    if error.code not in STATUS_OF:
        return _answer(request, "internal", "The server failed; the request id finds the reason in its log.")
    if error.__cause__ is not None:  # for the log line: a decoder that ran out of memory is no ordinary damaged photo
        request.scope["problem_cause"] = type(error.__cause__).__name__
    return _answer(request, error.code, str(error))


def request_id_of(request: Request) -> str:
    """The id that the intake gave the request."""
    return str(request.scope.get("request_id", "-"))


def _answer(request: Request, code: str, detail: str) -> Response:
    request.scope["problem_code"] = code  # for the metrics and the log line, which see only the scope
    return problem_response(request_id_of(request), code, detail)


async def _on_domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CarsearchError)  # noqa: S101  # it is registered for these alone
    return problem_of(request, error)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    """Names the parameter and the rule and never the value, which may be anything, in any encoding."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    if where[-1] == "k":
        return _answer(request, "invalid_k", "k must be a whole number from 1 to 100.")
    if first["type"] == "json_invalid":
        return _answer(request, "malformed_json", "The body is not valid JSON.")
    return _answer(request, "invalid_request", f"{' '.join(where)[:100]}: {first['msg']}.")


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    if code is None:
        return _answer(request, "malformed_multipart" if error.status_code == 400 else "internal", str(error.detail))
    detail = "There is nothing at this address." if code == "not_found" else "This address does not take that method."
    response = _answer(request, code, detail)
    response.headers.update(error.headers or {})
    # Starlette tells the methods of the first route at an address, and another may take others.
    methods = request.app.state.methods.get(getattr(request.scope.get("route"), "path", None))
    if code == "method_not_allowed" and methods:
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response


async def _on_disconnect(request: Request, _error: Exception) -> Response:
    return _answer(request, "client_disconnected", "The client went away.")  # nobody reads it; it is counted


async def _on_system_error(request: Request, error: Exception) -> Response:
    if getattr(error, "errno", None) not in USED_UP and str(error) != NO_THREAD:
        raise error  # a bug
    log.error("request %s cannot be worked on: %s", request_id_of(request), error)
    return _answer(request, "overloaded", "The server has no room for this request now; try again later.")


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("request %s failed", request_id_of(request), exc_info=error)
    return _answer(request, "internal", "The server failed; the request id finds the reason in its log.")


def install(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Registers the handlers for an app of these routers; the last one catches bugs."""
    methods: dict[str, set[str]] = {}
    for route in (route for router in routers for route in router.routes if isinstance(route, APIRoute)):
        methods.setdefault(route.path, set()).update(route.methods or ())
    app.state.methods = methods
    app.add_exception_handler(CarsearchError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(OSError, _on_system_error)
    app.add_exception_handler(RuntimeError, _on_system_error)
    app.add_exception_handler(Exception, _on_bug)
