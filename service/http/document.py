"""The OpenAPI document: what FastAPI makes of the routes, and what it cannot know."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.errors import Forbidden, Unauthorized
from service.http.context import Rules
from service.http.errors import MEDIA_TYPE, problem_body, problems
from service.http.examples import ANSWERS, BY_OPERATION, BY_TAG, EVERYWHERE, OF_BODIES
from service.http.schemas import DatasetRequest, Problem

Document = dict[str, Any]

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "An API key."},
}


OTHERS = {405, 500}
"""What any operation may answer; its "default" stands for these."""


def describe(app: FastAPI, routes: Iterable[APIRoute], keyed: bool, root_path: str | None = None) -> Document:
    """The document of an application that answers below a path; `keyed` where it asks for keys."""
    document = FastAPI.openapi(app)
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(
        {model.__name__: model.model_json_schema() for model in (DatasetRequest, Problem)}
    )
    components["examples"] = dict(_error_examples())
    document |= {"servers": [{"url": root_path or "/"}], "security": []}
    if keyed:
        components["securitySchemes"] = SCHEMES
    for route in routes:
        if route.include_in_schema:
            for method in route.methods or ():
                operation = document["paths"][route.path_format][method.lower()]
                if keyed:
                    _ask_for_a_key(operation, getattr(route.endpoint, "rules", Rules()))
                _give_examples(operation)
    return document


def _ask_for_a_key(operation: Document, rules: Rules) -> None:
    if rules.key_scope is None:
        return
    operation["security"] = [{name: []} for name in SCHEMES]
    statuses = [Unauthorized.status] + [Forbidden.status] * (rules.key_scope == "admin")
    refusals = {str(status): answer for status, answer in problems(*filter(None, statuses)).items()}
    operation["responses"] = dict(sorted({**operation["responses"], **refusals}.items()))


def _give_examples(operation: Document) -> None:
    (tag,), name = operation["tags"], operation["operationId"]
    errors = EVERYWHERE | BY_TAG.get(tag, {}) | BY_OPERATION.get(name, {})
    if "requestBody" in operation:
        errors = errors | OF_BODIES
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        example = ANSWERS.get(name, {}).get(status)
        if example is not None and "application/json" in content:
            content["application/json"]["example"] = example
        if MEDIA_TYPE in content:
            statuses = OTHERS if status == "default" else {int(status)}
            codes = [code for code, (told, _) in errors.items() if told in statuses]
            examples = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
            content[MEDIA_TYPE] = {**content[MEDIA_TYPE], "examples": examples}


def _error_examples() -> Iterator[tuple[str, Document]]:
    for errors in (EVERYWHERE, OF_BODIES, *BY_TAG.values(), *BY_OPERATION.values()):
        for code, (status, detail) in errors.items():
            yield code, {"value": problem_body(status, code, detail, "c0ffee00c0ffee00c0ffee00c0ffee00")}
