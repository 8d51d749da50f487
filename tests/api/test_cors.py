"""Pages of other origins: which of them a browser lets search and read, and what they never get."""

from collections.abc import Iterator

import httpx
import pytest

from indexer.versions import IndexDirectory
from service.http.admission import FairShare
from tests.support.app import AppClient, running_app
from tests.support.photos import car_photo

SHOP, OTHER = "https://shop.example", "https://other.example"
PHOTO = {"file": ("photo.jpg", car_photo())}
ALLOW = "access-control-allow-origin"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, fake_index: IndexDirectory) -> Iterator[AppClient]:
    """An application with a key, that two origins may use."""
    keys = tmp_path_factory.mktemp("cors") / "keys"
    keys.write_text("searcher-0123456789 dealer search\n")
    origins = f"{SHOP}, http://localhost:5173"
    with running_app(fake_index.root, keys_file=keys, cors_origins=origins) as client:
        yield client


def preflight(
    client: AppClient, method: str, path: str, origin: str = SHOP, header: str = "x-api-key"
) -> httpx.Response:
    asking = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
    return client.request("OPTIONS", path, headers={"Origin": origin, **asking})


def names(answer: httpx.Response) -> list[str]:
    return [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/search"),
        ("POST", "/search/batch"),
        ("GET", "/gallery"),
        ("GET", "/gallery/classes"),
        ("GET", "/gallery/a/b.jpg/image"),
        ("GET", "/info"),
        ("GET", "/openapi.json"),
    ],
)
def test_a_page_asks_before_it_searches_or_reads_and_needs_no_key_for_that(
    shared: AppClient, method: str, path: str
) -> None:
    answer = preflight(shared, method, path)
    assert (answer.status_code, answer.headers[ALLOW]) == (200, SHOP)
    assert method in answer.headers["access-control-allow-methods"]
    assert "x-api-key" in answer.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "origin", "header"),
    [
        ("POST", "/search", OTHER, "x-api-key"),
        ("POST", "/search", "null", "x-api-key"),
        ("DELETE", "/search", SHOP, "x-api-key"),
        ("POST", "/gallery/classes", SHOP, "x-api-key"),
        ("POST", "/gallery/duplicates", SHOP, "x-api-key"),
        ("POST", "/search", SHOP, "cookie"),
    ],
)
def test_a_preflight_for_anything_else_is_refused(
    shared: AppClient, method: str, path: str, origin: str, header: str
) -> None:
    assert preflight(shared, method, path, origin, header).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/evaluate"),
        ("GET", "/evaluations"),
        ("DELETE", "/evaluations/x"),
        ("GET", "/metrics"),
        ("GET", "/none"),
    ],
)
def test_routes_that_write_or_are_for_the_operator_know_no_other_origins(
    shared: AppClient, method: str, path: str
) -> None:
    asked = preflight(shared, method, path)
    assert asked.status_code in (401, 404, 405)
    assert names(asked) == names(shared.request(method, path, headers={"Origin": SHOP})) == []


def test_a_page_reads_answers_and_refusals_alike(shared: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    origin, key = {"Origin": SHOP}, {"X-Api-Key": "searcher-0123456789"}
    answers = [
        shared.post("/search", files=PHOTO, headers={**origin, **key}),
        shared.post("/search", files=PHOTO, headers=origin),
    ]
    monkeypatch.setattr(FairShare, "has_room", lambda *_: False)
    answers.append(shared.post("/search", files=PHOTO, headers={**origin, **key}))
    assert [answer.status_code for answer in answers] == [200, 401, 429]
    for answer in answers:
        assert answer.headers[ALLOW] == SHOP
        assert answer.headers["access-control-expose-headers"] == "Retry-After, X-Request-Id"
        assert "Origin" in answer.headers["vary"]
    assert ALLOW not in shared.post("/search", files=PHOTO, headers={**key, "Origin": OTHER}).headers


def test_every_origin_may_be_allowed(fake_index: IndexDirectory) -> None:
    with running_app(fake_index.root, cors_origins="*") as client:
        for origin in (SHOP, OTHER):
            assert client.get("/info", headers={"Origin": origin}).headers[ALLOW] == "*"
        assert preflight(client, "POST", "/search").headers[ALLOW] == "*"
