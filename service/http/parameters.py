"""Parameters that a route does not have are refused by name, with the right one where it is near.

One that is ignored gives another answer than the one that was asked for, and nobody notices.
"""

import difflib
import re
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.errors import UnknownParameter

SYNONYMS = {
    "k": ("top_k", "topk", "limit", "n", "size", "count"),
    "class": ("label", "labels", "class_name", "category"),
    "min_score": ("threshold", "min_similarity", "score_threshold"),
    "precision": ("conf", "confidence"),
}
"""Parameter -> what other services call it."""

MAX_NAME = 40
UNPRINTED = re.compile(r"[^A-Za-z0-9_.\[\]-]")


class StrictRoute(APIRoute):
    """A route that refuses query parameters which it does not declare."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, known = super().get_route_handler(), parameters_of(self)

        async def handle_known(request: Request) -> Response:
            if request.scope["query_string"]:
                for name in request.query_params:
                    if name not in known:
                        raise UnknownParameter(_no_parameter(name, known))
            return await handle(request)

        return handle_known


def parameters_of(route: object) -> list[str]:
    """The names of a route's query parameters, in its order; none for what is no route."""
    if not isinstance(route, APIRoute):
        return []
    documented = (route.openapi_extra or {}).get("parameters", ())
    return [parameter.alias for parameter in route.dependant.query_params] + [one["name"] for one in documented]


def documented(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The fields of a model as query parameters, as FastAPI documents those that it reads."""
    told = []
    for name, schema in model.model_json_schema()["properties"].items():
        if schema["default"] is None:
            del schema["default"]
        told.append(
            {"name": name, "in": "query", "required": False, "schema": schema, "description": schema["description"]}
        )
    return told


def refuse_field(request: Request, name: str, where: str) -> None:
    """Raises UnknownParameter for a field of the body that nobody reads, `where` is a "form field" or the like."""
    route = request.scope.get("route")
    detail = f'The {where} "{_printable(name)}" is not read'
    near = _near_parameter(name, parameters_of(route))
    if near is None or not isinstance(route, APIRoute):
        raise UnknownParameter(f"{detail}; leave it out.")
    raise UnknownParameter(f"{detail}; send it as a query parameter: {route.path_format}?{near}=...")


def _no_parameter(name: str, known: Collection[str]) -> str:
    detail = f'There is no query parameter "{_printable(name)}"'
    if (near := _near_parameter(name, known)) is not None:
        return f'{detail}; did you mean "{near}"?'
    return f"{detail}; there are: {', '.join(known)}." if known else f"{detail}; this address takes none."


def _near_parameter(name: str, known: Collection[str]) -> str | None:
    """The known parameter that somebody means who writes this; None where none is near."""
    plain = name[:MAX_NAME].lower().replace("-", "_").strip("_[] ")
    words = {spelling: parameter for parameter in known for spelling in (parameter, *SYNONYMS.get(parameter, ()))}
    near = difflib.get_close_matches(plain, words, 1, 0.75)
    return words[near[0]] if near else None


def _printable(name: str) -> str:
    return UNPRINTED.sub("?", name[:MAX_NAME])
