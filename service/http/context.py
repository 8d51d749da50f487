"""What the server knows of one request, and what each route asks of its requests."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

KeyScope = Literal["search", "admin"]
Upload = Literal["photo", "archive"]
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a route asks: the scope of the API key, the kind of its upload, and whether machines poll it.

    A polled route leaves no trace, and a log line only when it answers an error.
    """

    key_scope: KeyScope | None = None
    upload: Upload | None = None
    polled: bool = False


@dataclass(frozen=True, slots=True)
class RouteInfo:
    """A route's path template, its rules, and every method that its path takes."""

    template: str = "none"
    rules: Rules = Rules()
    methods: tuple[str, ...] = ()


UNKNOWN_ROUTE = RouteInfo()


@dataclass(slots=True)
class RequestContext:
    """One request: who sent it, what came of it, what the log, the metrics and the trace tell of it."""

    request_id: str
    route: RouteInfo
    method: str
    client: str = ""
    """The holder of the API key, or the client's address."""
    status: int = 0
    code: str = "ok"
    cause: str | None = None
    """The exception behind an error, by the name of its class."""
    received_bytes: int = 0
    body_complete: bool = False
    received_ns: int = 0
    """When the upload was complete, Unix time."""
    index: str | None = None
    trace_id: str | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)


def context_of(scope: Scope) -> RequestContext:
    """The context that the access log has put into the scope of a request."""
    context: RequestContext = scope["context"]
    return context


def rules(
    *, key_scope: KeyScope | None = None, upload: Upload | None = None, polled: bool = False
) -> Callable[[Endpoint], Endpoint]:
    """Declares the rules of a route, at its endpoint."""

    def declare(endpoint: Endpoint) -> Endpoint:
        endpoint.rules = Rules(key_scope, upload, polled)  # type: ignore[attr-defined]
        return endpoint

    return declare


class RouteTable:
    """Finds the route of a path before the application has routed it, so that middlewares know its rules."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """Raises TypeError for an API route that declares no rules: nothing is open by oversight."""
        found: dict[str, RouteInfo] = {}
        self._patterns: list[tuple[Route, str]] = []
        for route in routes:
            if not isinstance(route, Route):
                continue
            declared: Rules | None = getattr(route.endpoint, "rules", None)
            if declared is None and isinstance(route, APIRoute) and route.include_in_schema:
                raise TypeError(f"{route.path} declares no rules")
            before = found.get(route.path, UNKNOWN_ROUTE)
            methods = tuple(sorted({*before.methods, *(route.methods or ())}))
            found[route.path] = RouteInfo(route.path, declared or Rules(), methods)
            if route.param_convertors:
                self._patterns.append((route, route.path))
        self._routes = found

    def find(self, path: str) -> RouteInfo:
        """The route of a path; UNKNOWN_ROUTE for a path that leads nowhere."""
        if (exact := self._routes.get(path)) is not None:
            return exact
        for route, template in self._patterns:
            if route.path_regex.match(path):
                return self._routes[template]
        return UNKNOWN_ROUTE
