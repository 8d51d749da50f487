"""The middleware around all but `Cors`: a request's context, its answer's common headers, its log line and metrics.

Whatever is raised below and not answered there is answered here, so that every answer but that to a preflight is
counted and has its id.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Iterable
from http import HTTPMethod

from opentelemetry.trace import get_current_span
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Draining, Overloaded, UploadTimeout
from service.http.context import RequestContext, RouteInfo, Rules
from service.http.errors import problem, response_to
from service.http.proxies import own_path
from service.http.state import State
from service.observability.logging import request_id

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CUT_OFF = (UploadTimeout.code, "internal")
"""After these errors the connection ends: the rest of the body is not read, or the server's state is not known."""

log = logging.getLogger("carsearch")


class RouteTable:
    """Finds the route of a path before the application has routed it, so that middlewares know its rules."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = [route for route in routes if isinstance(route, Route)]
        # Paths without parameters, which most requests have, are found at once.
        fixed = [route.path for route in self._routes if not route.param_convertors]
        self._fixed = {(path, method): self._match(path, method) for path in fixed for method in HTTPMethod.__members__}

    def find(self, path: str, method: str = "GET") -> RouteInfo:
        """The route of a path, with the methods of all its routes; an empty one for a path that leads nowhere.

        Of several routes it is the one of the method, or else the first.
        """
        return self._fixed.get((path, method)) or self._match(path, method)

    def _match(self, path: str, method: str) -> RouteInfo:
        found = [route for route in self._routes if route.path_regex.match(path)]
        if not found:
            return RouteInfo()
        chosen = next((route for route in found if method in (route.methods or ())), found[0])
        rules = getattr(chosen.endpoint, "rules", Rules())
        methods = {taken for route in found for taken in route.methods or ()}
        return RouteInfo(chosen.path, rules, tuple(sorted(methods)))


class AccessLog:
    """Wraps the application; see the module."""

    def __init__(self, app: ASGIApp, routes: RouteTable, state: State) -> None:
        self._app, self._routes, self._state = app, routes, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(reversed(scope["headers"]))  # the first of each name
        offered = headers.get(b"x-request-id", b"").decode("latin-1")
        method = scope["method"] if scope["method"] in HTTPMethod.__members__ else "_OTHER"
        identity = offered if REQUEST_ID.fullmatch(offered) else secrets.token_hex(16)
        context = scope["context"] = RequestContext(identity, self._routes.find(own_path(scope), method), method)
        request_id.set(identity)  # a request has a task of its own, and with it the variable
        started = time.monotonic()

        async def send_and_log(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                self._tell(context, time.monotonic() - started)
                message = {**message, "headers": [*message.get("headers", ()), *self._common(context, headers)]}
            await send(message)

        try:
            await self._app(scope, receive, send_and_log)
        except asyncio.CancelledError:  # uvicorn's, when a server that stops has waited long enough
            if context.status:
                raise
            stopped = problem(context, 503, Draining.code, "The server stopped; ask another one.")
            await stopped(scope, receive, send_and_log)
        except Exception as error:  # the handler of bugs, and of what middlewares refuse
            if context.status:
                raise
            await response_to(error, context)(scope, receive, send_and_log)

    def _common(self, context: RequestContext, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        common = [(b"x-request-id", context.request_id.encode()), (b"x-content-type-options", b"nosniff")]
        unread = not context.body_complete and _is_endless(headers, self._state.limits.batch_bytes)
        if unread or self._state.draining.is_set() or context.code in CUT_OFF:
            common.append((b"connection", b"close"))
        return common

    def _tell(self, context: RequestContext, took_s: float) -> None:
        route = context.route.template
        self._state.metrics.answers.labels(route, context.status, context.code).inc()
        self._state.metrics.request_seconds.labels(route).observe(took_s)
        if (span := get_current_span()).is_recording():
            context.trace_id = f"{span.get_span_context().trace_id:032x}"
            span.set_attributes({"carsearch.request_id": context.request_id, "carsearch.code": context.code})
        # What a crowd is refused is counted; its lines would be a fifth of what a refusal costs.
        quiet = context.code == Overloaded.code or (context.route.rules.polled and context.code == "ok")
        level = logging.DEBUG if quiet else logging.INFO
        if log.isEnabledFor(level):
            code = f"{context.code} ({context.cause})" if context.cause else context.code
            told = (context.request_id, route, context.status, code, took_s * 1000)
            log.log(level, "%s %s %d %s %.1f ms", *told, extra={"fields": _fields(context, took_s)})


def _is_endless(headers: dict[bytes, bytes], most_bytes: int) -> bool:
    """Whether an unread body is too long to be read and thrown away, or may be; its connection ends then.

    A connection that is closed with unread data in it is reset: a proxy that is still sending would lose the answer. A
    body that is announced by "Expect" may never come, and the next request would be taken for it.
    """
    length = headers.get(b"content-length", b"")
    unbounded = b"transfer-encoding" in headers or b"expect" in headers
    return unbounded or (length.isdigit() and int(length) > most_bytes)


def _fields(context: RequestContext, took_s: float) -> dict[str, object]:
    """What a line of JSON tells: numbers and fixed words, nothing of what was sent."""
    always = {name: getattr(context, name) for name in ("request_id", "method", "status", "code")}
    optional = {name: getattr(context, name) for name in ("received_bytes", "index", "trace_id", "cause")}
    if context.stages_ms:
        optional["stages_ms"] = {stage: round(value, 3) for stage, value in context.stages_ms.items()}
    return {
        **always,
        "route": context.route.template,
        "took_ms": round(took_s * 1000, 2),
        **{name: value for name, value in optional.items() if value},
    }
