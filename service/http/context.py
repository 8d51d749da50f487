"""What the server knows of one request, and what each route asks of its requests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from starlette.types import Scope

KeyScope = Literal["search", "admin"]
Upload = Literal["photo", "photos", "archive"]
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Rules:
    """What a route asks: the scope of the API key, the kind of its upload, and whether machines poll it.

    A polled route leaves no trace, and a log line only when it answers an error. A signed link opens a `linked` route
    without a key. One that `writes` to the gallery is for servers with keys, and for no page of another origin.
    """

    key_scope: KeyScope | None = None
    upload: Upload | None = None
    polled: bool = False
    linked: bool = False
    writes: bool = False


@dataclass(frozen=True, slots=True)
class RouteInfo:
    """A route's path template, its rules, and every method that its path takes."""

    template: str = "none"
    rules: Rules = Rules()
    methods: tuple[str, ...] = ()


@dataclass(slots=True)
class RequestContext:
    """One request, in `scope["context"]`: who sent it, what came of it, what log, metrics and trace tell of it."""

    request_id: str
    route: RouteInfo
    method: str
    client: str = ""
    """The holder of the API key, or the client's address."""
    admin: bool = False
    """True for a request with a key of the scope admin."""
    status: int = 0
    code: str = "ok"
    cause: str | None = None
    """The exception behind an error, by the name of its class."""
    received_bytes: int = 0
    body_complete: bool = False
    index: str | None = None
    trace_id: str | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)


def media_type(scope: Scope) -> str:
    """The type of a body, without its parameters; empty where none is told. Limits and readers must agree on it."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return kind.partition(b";")[0].strip().lower().decode("latin-1")


def rules(
    *,
    key_scope: KeyScope | None = None,
    upload: Upload | None = None,
    polled: bool = False,
    linked: bool = False,
    writes: bool = False,
) -> Callable[[Endpoint], Endpoint]:
    """Declares the rules of a route, at its endpoint."""

    def declare(endpoint: Endpoint) -> Endpoint:
        endpoint.rules = Rules(key_scope, upload, polled, linked, writes)  # type: ignore[attr-defined]
        return endpoint

    return declare
