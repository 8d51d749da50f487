"""The documents that the server gives of itself: complete, self-contained, true about errors."""

import re
from typing import Any

import pytest

from service.http.app import API_ROUTES
from service.http.schemas import Problem
from tests.support.app import AppClient

ROUTES = {
    ("POST", "/search"),
    ("POST", "/evaluate"),
    ("GET", "/evaluations"),
    ("GET", "/evaluations/{identity}"),
    ("DELETE", "/evaluations/{identity}"),
    ("GET", "/gallery/classes"),
    ("GET", "/gallery/{identity}/image"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/info"),
}
ADDRESS = re.compile(r"""(?:src|href)\s*=\s*["']([^"']+)""")


@pytest.fixture(scope="module")
def document(api_client: AppClient) -> dict[str, Any]:
    described: dict[str, Any] = api_client.get("/openapi.json").json()
    return described


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    paths = document["paths"].items()
    return {(method.upper(), path): operation for path, methods in paths for method, operation in methods.items()}


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()


def test_the_documented_routes_are_the_ones_there_are(document: dict[str, Any]) -> None:
    assert operations(document).keys() == ROUTES


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    assert references(document) <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_every_documented_error_has_the_one_shape(document: dict[str, Any]) -> None:
    for operation in operations(document).values():
        for status, answer in operation["responses"].items():
            if status.startswith(("2", "3")):
                continue
            ((media_type, content),) = answer["content"].items()
            assert media_type == "application/problem+json"
            assert content["schema"]["properties"].keys() == Problem.model_fields.keys()


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("POST", "/search", {"200", "400", "408", "413", "415", "422", "429", "503"}),
        ("POST", "/evaluate", {"200", "202", "400", "404", "408", "413", "415", "422", "429", "503"}),
        ("GET", "/gallery/{identity}/image", {"200", "304", "404", "429", "503"}),
        ("GET", "/gallery/classes", {"200", "429", "503"}),
        ("GET", "/readyz", {"200", "503"}),
        ("GET", "/livez", {"200"}),
        ("GET", "/metrics", {"200"}),
        ("GET", "/info", {"200"}),
    ],
)
def test_the_statuses_of_a_route_are_documented(
    document: dict[str, Any], method: str, path: str, statuses: set[str]
) -> None:
    assert operations(document)[(method, path)]["responses"].keys() - {"default"} == statuses


def test_uploads_are_documented_although_no_form_parser_reads_them(document: dict[str, Any]) -> None:
    for path, field in (("/search", "file"), ("/evaluate", "archive")):
        content = operations(document)[("POST", path)]["requestBody"]["content"]
        assert content["multipart/form-data"]["schema"]["properties"][field]["format"] == "binary"


def test_the_pages_load_nothing_from_elsewhere(api_client: AppClient) -> None:
    page = api_client.get("/docs")
    assert page.status_code == 200
    addresses = ADDRESS.findall(page.text)
    assert len(addresses) >= 3
    assert all(address.startswith("/") and not address.startswith("//") for address in addresses)
    assert {api_client.get(address).status_code for address in addresses} == {200}


def test_the_root_leads_to_the_documents(api_client: AppClient) -> None:
    response = api_client.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/docs")


def test_every_route_declares_its_rules_so_that_none_is_open_by_oversight() -> None:
    assert {route.path for route in API_ROUTES if not hasattr(route.endpoint, "rules")} == set()
