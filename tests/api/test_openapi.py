"""The documents that the server gives of itself: complete, self-contained, true about errors."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bench.openapi import EXPORTED, exported
from indexer.versions import IndexDirectory
from service.http.app import API_ROUTES
from service.http.schemas import (
    BatchResponse,
    DuplicatesPage,
    EvaluationList,
    GalleryPage,
    GalleryPhoto,
    Info,
    Problem,
    PutManyResponse,
    SearchResponse,
)
from service.jobs import EvaluationRecord
from tests.support.app import AppClient, running_app
from tests.support.codes import STATUS_OF

ROUTES = {
    ("POST", "/search"),
    ("POST", "/search/batch"),
    ("POST", "/evaluate"),
    ("GET", "/evaluations"),
    ("GET", "/evaluations/{identity}"),
    ("DELETE", "/evaluations/{identity}"),
    ("GET", "/gallery"),
    ("POST", "/gallery"),
    ("POST", "/gallery/duplicates"),
    ("PUT", "/gallery/{identity}"),
    ("DELETE", "/gallery/{identity}"),
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
    there = {f"#/components/{kind}/{name}" for kind, named in document["components"].items() for name in named}
    assert references(document) <= there


def test_every_documented_error_has_the_one_shape(document: dict[str, Any]) -> None:
    for operation in operations(document).values():
        for status, answer in operation["responses"].items():
            if status.startswith(("2", "3")):
                continue
            ((media_type, content),) = answer["content"].items()
            assert media_type == "application/problem+json"
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert document["components"]["schemas"]["Problem"]["properties"].keys() == Problem.model_fields.keys()


def test_operations_have_the_names_that_clients_call_theirs(document: dict[str, Any]) -> None:
    assert {operation["operationId"] for operation in operations(document).values()} == {
        *(
            "search",
            "search_batch",
            "list_gallery",
            "evaluate",
            "list_evaluations",
            "get_evaluation",
            "cancel_evaluation",
        ),
        *(
            "list_classes",
            "get_gallery_image",
            "put_photo",
            "put_photos",
            "delete_photo",
            "list_duplicates",
            "livez",
            "readyz",
            "metrics",
            "info",
        ),
    }


def test_every_error_code_has_an_example_where_it_is_answered(document: dict[str, Any]) -> None:
    examples = {code: example["value"] for code, example in document["components"]["examples"].items()}
    no_answer = {"photos_skipped", "gallery_shrank"}  # of builds
    assert {code: example["status"] for code, example in examples.items()} == {
        code: status for code, status in STATUS_OF.items() if code not in no_answer
    }
    for code, example in examples.items():
        assert (example["code"], Problem.model_validate(example).detail[-1] in ".?") == (code, True)


@pytest.mark.parametrize(
    ("method", "path", "status", "codes"),
    [
        (
            "POST",
            "/search",
            "415",
            {"unsupported_content_encoding", "unsupported_content_type", "unsupported_image_format"},
        ),
        ("POST", "/search", "404", {"not_found", "unknown_item"}),
        ("GET", "/gallery", "422", {"invalid_filter", "invalid_request", "unknown_class", "unknown_parameter"}),
        ("GET", "/evaluations/{identity}", "404", {"not_found", "unknown_evaluation"}),
    ],
)
def test_a_status_has_an_example_of_each_code_that_it_stands_for(
    document: dict[str, Any], method: str, path: str, status: str, codes: set[str]
) -> None:
    answer = operations(document)[(method, path)]["responses"][status]
    assert answer["content"]["application/problem+json"]["examples"].keys() == codes


def test_an_example_of_an_answer_is_one(document: dict[str, Any]) -> None:
    models: dict[str, type[BaseModel]] = {
        "search": SearchResponse, "search_batch": BatchResponse, "list_gallery": GalleryPage, "info": Info,
        "list_evaluations": EvaluationList, "put_photo": GalleryPhoto, "put_photos": PutManyResponse,
        "list_duplicates": DuplicatesPage,
        "get_evaluation": EvaluationRecord, "cancel_evaluation": EvaluationRecord,
    }  # fmt: skip
    for operation in operations(document).values():
        for status, answer in operation["responses"].items():
            if status.startswith("2") and "application/json" in answer.get("content", {}):
                example = answer["content"]["application/json"]["example"]
                if model := models.get(operation["operationId"]):
                    model.model_validate(example)


def test_without_keys_nothing_is_said_of_keys(document: dict[str, Any]) -> None:
    assert document["security"] == []
    assert "securitySchemes" not in document["components"]


def test_with_keys_the_document_says_where_they_are_needed(fake_index: IndexDirectory, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("searcher-0123456789 dealer search\n")
    with running_app(fake_index.root, keys_file=tmp_path / "keys") as client:
        document = client.get("/openapi.json").json()
        schemes = document["components"]["securitySchemes"]
        assert schemes["bearer"].items() >= {"type": "http", "scheme": "bearer"}.items()
        assert schemes["key"].items() >= {"type": "apiKey", "in": "header", "name": "X-Api-Key"}.items()
        for (method, path), operation in operations(document).items():
            refused = client.request(method, path.replace("{identity}", "x")).status_code == 401
            assert ([*operation.get("security", ())] == [{"bearer": []}, {"key": []}]) == refused
            assert ("401" in operation["responses"]) == refused


def test_the_exported_document_is_the_server_s() -> None:
    assert EXPORTED.read_text(encoding="utf-8") == exported(), "python -m bench openapi writes it anew"


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("POST", "/search/batch", {"200", "400", "408", "413", "415", "422", "429", "503"}),
        ("POST", "/search", {"200", "400", "404", "408", "413", "415", "422", "429", "503"}),
        ("POST", "/evaluate", {"200", "202", "400", "404", "408", "413", "415", "422", "429", "503"}),
        ("GET", "/gallery/{identity}/image", {"200", "304", "404", "429", "503"}),
        ("GET", "/gallery", {"200", "422", "429", "503"}),
        ("GET", "/gallery/classes", {"200", "429", "503"}),
        ("POST", "/gallery/duplicates", {"200", "403", "422", "429", "503"}),
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


def test_a_search_takes_a_form_a_body_or_json_and_a_batch_a_form_of_several(document: dict[str, Any]) -> None:
    one, several = (operations(document)[("POST", path)] for path in ("/search", "/search/batch"))
    assert (one["operationId"], several["operationId"]) == ("search", "search_batch")
    content = one["requestBody"]["content"]
    assert content.keys() == {"multipart/form-data", "image/*", "application/octet-stream", "application/json"}
    assert content["application/json"]["schema"]["properties"].keys() == {"image", "id"}
    files = several["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]["file"]
    assert (files["type"], files["items"]["format"]) == ("array", "binary")
    assert [one["name"] for one in several["parameters"]] == [
        "k", "class", "where", "precision", "min_score", "group", "box"
    ]  # fmt: skip


def test_the_pages_load_nothing_from_elsewhere(api_client: AppClient) -> None:
    page = api_client.get("/docs")
    assert page.status_code == 200
    addresses = ADDRESS.findall(page.text)
    assert len(addresses) >= 3
    assert all(address.startswith("/") and not address.startswith("//") for address in addresses)
    assert {api_client.get(address).status_code for address in addresses} == {200}


def test_every_route_declares_its_rules_so_that_none_is_open_by_oversight() -> None:
    assert {route.path for route in API_ROUTES if not hasattr(route.endpoint, "rules")} == set()
