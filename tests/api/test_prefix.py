"""A server behind a prefix: what it says of its own addresses, and whom it believes."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from starlette.routing import Mount, Route

from indexer.versions import IndexDirectory
from service.http.app import API_ROUTES, create_app
from service.http.limits import Limits
from service.settings import ROOT_PATH, load_settings
from tests.support.calls import assert_problem, evaluate_named, metric
from tests.support.photos import car_photo
from tests.support.wire import WireServer, wire_server

PHOTO = {"file": ("photo.jpg", car_photo())}
LIVE = 'carsearch_answers_total{code="ok",route="/livez",status="200"}'


@pytest.fixture(scope="module")
def prefixed(fake_index: IndexDirectory, gallery: Path) -> Iterator[WireServer]:
    """A server that was told its prefix, and trusts this host as its proxy."""
    told = {"root_path": "/cars/v1", "trusted_proxies": "127.0.0.1"}
    with wire_server(fake_index.root, Limits(), datasets={"demo": gallery}, **told) as server:
        yield server


def addresses(server: WireServer, prefix: str, sent: str, **headers: str) -> list[str]:
    """What a server says that it is called: image, document, pages and redirects, asked below `sent`."""
    client = server.client
    found = client.post(f"{sent}/search", files=PHOTO, headers=headers).json()["nearest"]["image"]
    assert found.startswith(f"{prefix}/gallery/")
    stripped = found.removeprefix(prefix)
    assert client.get(f"{sent}{stripped}", headers=headers).content.startswith(b"\xff\xd8")
    document = client.get(f"{sent}/openapi.json", headers=headers).json()
    page = client.get(f"{sent}/docs", headers=headers).text
    assert f'"{prefix}/static-offline-docs/swagger-ui.css"' in page
    assert f"'{prefix}/openapi.json'" in page
    assert client.get(f"{sent}/static-offline-docs/swagger-ui.css", headers=headers).status_code == 200
    moved = client.get(f"{sent}/livez/", headers=headers).headers["location"]
    return [document["servers"][0]["url"], moved]


def test_the_page_names_its_files_relative_to_itself(prefixed: WireServer) -> None:
    for sent in ("/", "/cars/v1/"):
        page = prefixed.client.get(sent)
        addresses = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
        assert "web/app.js" in addresses
        assert {prefixed.client.get(f"{sent}{address}").status_code for address in addresses} == {200}
    assert urlsplit(prefixed.client.get("/cars/v1").headers["location"]).path == "/cars/v1/"


@pytest.mark.parametrize("sent", ["", "/cars/v1"], ids=["the proxy takes it off", "the proxy passes it on"])
def test_the_prefix_stands_in_every_address(prefixed: WireServer, sent: str) -> None:
    assert addresses(prefixed, "/cars/v1", sent) == ["/cars/v1", f"{prefixed.url}/cars/v1/livez"]


def test_a_trusted_proxy_says_the_prefix_itself(prefixed: WireServer) -> None:
    told = {"X-Forwarded-Prefix": "/shop/", "X-Forwarded-Proto": "https"}
    moved = urljoin(prefixed.url.replace("http", "https"), "/shop/livez")
    assert addresses(prefixed, "/shop", "", **told) == ["/shop", moved]


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/a//b", "/..", "/a/../b", "https://evil.example", "/<x>", "", "/info"]
)
def test_a_prefix_that_is_no_path_is_passed_over(prefixed: WireServer, prefix: str) -> None:
    moved = prefixed.client.get("/livez/", headers={"X-Forwarded-Prefix": prefix})
    assert moved.headers["location"] == f"{prefixed.url}/cars/v1/livez"


def test_no_address_of_ours_may_begin_a_prefix(tmp_path: Path) -> None:
    routes = [*API_ROUTES, *create_app(load_settings(index_dir=tmp_path)).routes]
    first = {route.path.split("/")[1] for route in routes if isinstance(route, Route | Mount)} - {""}
    assert first >= {"search", "gallery", "docs", "openapi.json"}
    assert [one for one in first if ROOT_PATH.fullmatch(f"/{one}") or not ROOT_PATH.fullmatch(f"/{one}-2")] == []


def test_nobody_else_says_the_prefix(fake_index: IndexDirectory) -> None:
    with wire_server(fake_index.root, Limits()) as server:
        told = {"X-Forwarded-Prefix": "/shop"}
        assert server.client.get("/livez/", headers=told).headers["location"] == f"{server.url}/livez"
        assert_problem(server.client.get("/shop/livez", headers=told), "not_found")


def test_the_location_of_an_evaluation_has_the_prefix(prefixed: WireServer) -> None:
    begun = evaluate_named(prefixed, "demo", background=True)
    assert begun.headers["location"] == f"/cars/v1/evaluations/{begun.json()['id']}"
    assert prefixed.client.get(begun.headers["location"]).status_code == 200


def test_the_rules_of_a_route_hold_below_the_prefix(prefixed: WireServer) -> None:
    before = metric(prefixed, LIVE)
    assert prefixed.client.get("/cars/v1/livez").status_code == 200
    assert metric(prefixed, LIVE) == before + 1
    compressed = {"Content-Encoding": "gzip"}
    assert_problem(
        prefixed.client.post("/cars/v1/search", content=b"x", headers=compressed), "unsupported_content_encoding"
    )
    assert_problem(httpx.get(f"{prefixed.url}/carsx/livez"), "not_found")
