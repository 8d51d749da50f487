"""API keys, scopes, and what several clients get of one server."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.versions import IndexDirectory
from service.http.limits import Limits
from tests.api.conftest import Gate
from tests.support.app import AppClient, running_app
from tests.support.bodies import FORM, zip_of
from tests.support.calls import assert_problem, at_work, eventually
from tests.support.photos import car_photo
from tests.support.wire import WireServer, wire_server

SEARCHER, ADMIN, WRONG = "searcher-0123456789", "admin-0123456789abc", "not-a-key-of-this-server"
PHOTO = {"file": ("photo.jpg", car_photo())}
ARCHIVE = {
    "archive": ("set.zip", zip_of({"a/1.jpg": car_photo(0, 0), "a/2.jpg": car_photo(0, 1), "b/1.jpg": car_photo(1)}))
}
POLLED = {("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics")}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, fake_index: IndexDirectory) -> Iterator[AppClient]:
    """An application with two keys."""
    keys: Path = tmp_path_factory.mktemp("guarded") / "keys"
    keys.write_text(f"{SEARCHER} dealer search\n{ADMIN} operator admin\n")
    with running_app(fake_index.root, keys_file=keys) as client:
        yield client


def routes_of(client: AppClient) -> list[tuple[str, str]]:
    """Method and address of every documented route, its parameters filled in."""
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path.replace("{identity}", "x")) for path, methods in paths.items() for method in methods]


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": WRONG}, {"Authorization": f"Bearer {WRONG}"}], ids=str)
def test_068_without_a_key_that_is_known_nothing_is_answered_but_probes(
    guarded: AppClient, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    routes = routes_of(guarded)
    assert set(routes) > POLLED
    for method, path in routes:
        answer = guarded.request(method, path, headers=headers)
        if (method, path) in POLLED:
            assert answer.status_code == 200
        else:
            assert_problem(answer, "unauthorized", WRONG)
            assert answer.headers["www-authenticate"] == "Bearer"
    assert WRONG not in caplog.text


def test_documents_and_unknown_addresses_need_no_key(guarded: AppClient) -> None:
    for path in ("/", "/docs", "/openapi.json"):
        assert guarded.get(path).status_code in (200, 307)
    for path in ("/none", "/search/", "/evaluations/", "/gallery/"):
        assert guarded.post(path).status_code in (307, 404)
    assert_problem(guarded.get("/none"), "not_found")


@pytest.mark.parametrize("path", ["/search", "/evaluate", "/evaluations/x", "/gallery/classes"])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "REPORT"])
def test_no_method_leads_around_the_key(guarded: AppClient, method: str, path: str) -> None:
    assert guarded.request(method, path).status_code == 401


@pytest.mark.parametrize("key", [b"caf\xe9", b"\x01", b"x" * 20_000, b"", b"\xff\xfe"])
def test_068_a_key_of_any_bytes_is_unknown_and_no_failure(guarded: AppClient, key: bytes) -> None:
    for name in (b"X-API-Key", b"Authorization"):
        refused = guarded.request("GET", "/info", headers=[(name, b"Bearer " + key if name != b"X-API-Key" else key)])
        assert_problem(refused, "unauthorized")


def test_067_an_upload_without_a_key_is_refused_before_it_is_sent(guarded: AppClient) -> None:
    upload = guarded.exchange("POST", "/search", {**FORM, "Content-Length": "100000000"})
    refused = upload.answer()
    assert_problem(refused, "unauthorized")
    assert (upload.read_bytes, refused.headers["connection"]) == (0, "close")


def test_a_key_for_searches_does_not_open_evaluations(guarded: AppClient) -> None:
    key = {"X-API-Key": SEARCHER}
    assert guarded.post("/search", files=PHOTO, headers=key).status_code == 200
    for method, path in (
        ("POST", "/evaluate"),
        ("GET", "/evaluations"),
        ("GET", "/evaluations/0"),
        ("DELETE", "/evaluations/0"),
    ):
        assert_problem(guarded.request(method, path, headers=key), "forbidden", SEARCHER)


def test_a_key_for_everything_opens_both(guarded: AppClient, caplog: pytest.LogCaptureFixture) -> None:
    key = {"Authorization": f"Bearer {ADMIN}"}
    assert guarded.post("/search", files=PHOTO, headers=key).status_code == 200
    evaluated = guarded.post("/evaluate", files=ARCHIVE, headers=key)
    assert evaluated.status_code == 200, evaluated.text
    assert ADMIN not in caplog.text


def test_the_link_of_a_hit_shows_its_photo_without_a_key(guarded: AppClient) -> None:
    found = guarded.post("/search", files=PHOTO, headers={"X-API-Key": SEARCHER}).json()["nearest"]
    path, _, query = found["image"].partition("?")
    for method in ("GET", "HEAD"):
        shown = guarded.request(method, found["image"])
        assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
        assert shown.headers["cache-control"] == "private, no-cache"
    known = guarded.get(path, headers={"X-API-Key": SEARCHER})
    assert known.headers["cache-control"] == "private, no-cache"
    assert_problem(guarded.get(path), "unauthorized")
    changed = guarded.get(f"{path}?{query[:-1]}", headers={})
    assert_problem(changed, "unauthorized")
    assert changed.json()["detail"] == "The link has expired or was changed; search again, or send an API key."
    assert_problem(guarded.get(f"/gallery/none/image?{query}"), "unauthorized")


def test_a_link_opens_nothing_but_its_image(guarded: AppClient) -> None:
    found = guarded.post("/search", files=PHOTO, headers={"X-API-Key": SEARCHER}).json()["nearest"]
    query = found["image"].partition("?")[2]
    for method, path in (("GET", "/info"), ("GET", "/gallery/classes"), ("POST", "/search"), ("GET", "/evaluations")):
        assert_problem(guarded.request(method, f"{path}?{query}"), "unauthorized")
    assert guarded.post(found["image"]).status_code == 401


def test_replicas_that_share_a_secret_show_each_other_s_links(
    fake_index: IndexDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "keys").write_text(f"{SEARCHER} dealer search\n")
    (tmp_path / "secret").write_text("0123456789abcdef\n")
    shared: dict[str, Any] = {"keys_file": tmp_path / "keys", "link_secret_file": tmp_path / "secret"}
    with running_app(fake_index.root, **shared) as first, running_app(fake_index.root, **shared) as second:
        found = first.post("/search", files=PHOTO, headers={"X-API-Key": SEARCHER}).json()["nearest"]
        assert second.get(found["image"]).status_code == 200
    assert "LINK_SECRET_FILE" not in caplog.text


GREEDY, MODEST, REQUESTS = "192.0.2.1", "192.0.2.2", 20
CROWDED: dict[str, Any] = {"search_threads": 1, "max_queue": 17}
"""18 places, of which one client may have 16."""


def test_085_a_client_that_asks_for_all_does_not_shut_out_another(fake_index: IndexDirectory, gate: Gate) -> None:
    with running_app(fake_index.root, **CROWDED) as client:
        greedy, modest = client.seen_as(GREEDY), client.seen_as(MODEST)
        asked = [greedy.begin("POST", "/search", files={"file": gate.photo}) for _ in range(REQUESTS)]
        eventually(lambda: any(one.done() for one in asked), "the greedy one is refused")
        assert_problem(greedy.post("/search", files=PHOTO), "overloaded")
        answered = modest.begin("POST", "/search", files=PHOTO)
        eventually(lambda: at_work(client) == 17 or answered.done(), "the modest one waits for its turn")
        gate.open()
        assert answered.result().status_code == 200
        assert Counter(one.result().status_code for one in asked) == {200: 16, 429: 4}
        assert at_work(client) == 0


@pytest.fixture(scope="module")
def proxied(fake_index: IndexDirectory) -> Iterator[WireServer]:
    """A server that believes what this host says of its clients."""
    with wire_server(fake_index.root, Limits(), trusted_proxies="127.0.0.1", **CROWDED) as server:
        yield server


def test_a_proxy_that_is_named_says_who_asks(proxied: WireServer, gate: Gate) -> None:
    def ask(client: str, photo: bytes) -> httpx.Response:
        headers = {"X-Forwarded-For": f"198.51.100.9, {client}"}  # what a client claims stands on the left
        return httpx.post(f"{proxied.url}/search", files={"file": photo}, headers=headers, timeout=60)

    with ThreadPoolExecutor(REQUESTS) as clients:
        asked = [clients.submit(ask, GREEDY, gate.photo) for _ in range(REQUESTS)]
        try:
            eventually(lambda: at_work(proxied) == 16, "the greedy one has all that it may have")
            assert_problem(ask(GREEDY, car_photo()), "overloaded")
            answered = clients.submit(ask, MODEST, car_photo())
            eventually(lambda: at_work(proxied) == 17, "the modest one waits for its turn")
        finally:
            gate.open()
    assert answered.result().status_code == 200
    assert Counter(one.result().status_code for one in asked) == {200: 16, 429: 4}
