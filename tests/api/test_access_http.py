"""Keys, rates and fair shares, on a real server."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from indexer.versions import IndexDirectory
from tests.support.bodies import FORM, form, zip_of
from tests.support.calls import assert_problem, at_work, eventually, metric
from tests.support.connections import answer, connect, head
from tests.support.photos import car_photo
from tests.support.servers import Server, running_server

SEARCHER, ADMIN = "searcher-0123456789", "admin-0123456789abc"
PHOTO = {"file": ("photo.jpg", car_photo())}
ARCHIVE = {
    "archive": ("set.zip", zip_of({"a/1.jpg": car_photo(0, 0), "a/2.jpg": car_photo(0, 1), "b/1.jpg": car_photo(1)}))
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory) -> Iterator[Server]:
    """A server with two keys."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(f"{SEARCHER} dealer search\n{ADMIN} operator admin\n")
    with running_server(real_index.root, folder / "log", KEYS_FILE=str(folder / "keys")) as server:
        yield server


def test_068_without_a_key_that_is_known_nothing_is_answered_but_probes(guarded: Server) -> None:
    wrong = "not-a-key-of-this-server"
    for headers in ({}, {"X-API-Key": wrong}, {"Authorization": f"Bearer {wrong}"}):
        for method, path in (("POST", "/search"), ("POST", "/evaluate"), ("GET", "/info"), ("GET", "/none")):
            refused = guarded.client.request(method, path, headers=headers)
            assert_problem(refused, "unauthorized", wrong)
            assert refused.headers["www-authenticate"] == "Bearer"
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert guarded.client.get(path).status_code == 200
    assert wrong not in guarded.log


@pytest.mark.parametrize("key", ["caf\xe9", "\x01", "x" * 20_000])
def test_068_a_key_of_any_bytes_is_unknown_and_no_failure(guarded: Server, key: str) -> None:
    with connect(guarded) as connection:
        connection.sendall(head(f"X-API-Key: {key}", "Content-Length: 0"))
        status, _ = answer(connection)
    assert status in (400, 401)  # a control character is no header to the parser


def test_067_an_upload_without_a_key_is_refused_before_it_is_sent(guarded: Server) -> None:
    with connect(guarded) as connection:
        connection.sendall(head("Content-Length: 100000000"))
        status, body = answer(connection)
        assert (status, '"unauthorized"' in body) == (401, True)
        assert connection.recv(1) == b""


def test_a_key_for_searches_does_not_open_evaluations(guarded: Server) -> None:
    key = {"X-API-Key": SEARCHER}
    assert guarded.client.post("/search", files=PHOTO, headers=key).status_code == 200
    for method, path in (("POST", "/evaluate"), ("GET", "/evaluations/0"), ("DELETE", "/evaluations/0")):
        assert_problem(guarded.client.request(method, path, headers=key), "forbidden", SEARCHER)


def test_a_key_for_everything_opens_both(guarded: Server) -> None:
    key = {"Authorization": f"Bearer {ADMIN}"}
    assert guarded.client.post("/search", files=PHOTO, headers=key).status_code == 200
    evaluated = guarded.client.post("/evaluate", files=ARCHIVE, headers=key)
    assert evaluated.status_code == 200, evaluated.text
    assert ADMIN not in guarded.log


def test_who_sends_more_than_its_rate_is_told_when_to_come_back(tmp_path: Path, real_index: IndexDirectory) -> None:
    with running_server(real_index.root, tmp_path / "log", RATE_LIMIT="5/hour") as server:
        for _ in range(5):
            assert server.client.post("/search", files=PHOTO).status_code == 200
        refused = server.client.post("/search", files=PHOTO)
        assert_problem(refused, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 3600
        forged = server.client.post("/search", files=PHOTO, headers={"X-Forwarded-For": "192.0.2.1"})
        assert_problem(forged, "rate_limited")
        assert server.client.get("/readyz").status_code == 200
        assert metric(server, 'carsearch_answers_total{code="rate_limited",route="/search",status="429"}') == 2


def test_a_proxy_that_is_named_says_who_asks(tmp_path: Path, real_index: IndexDirectory) -> None:
    log = tmp_path / "log"
    with running_server(real_index.root, log, RATE_LIMIT="2/hour", TRUSTED_PROXIES="127.0.0.0/8") as server:
        for client in ("192.0.2.1", "192.0.2.2"):
            headers = {"X-Forwarded-For": f"198.51.100.9, {client}"}  # what a client claims stands on the left
            statuses = [server.client.get("/info", headers=headers).status_code for _ in range(3)]
            assert statuses == [200, 200, 429]


def test_085_a_client_that_asks_for_all_does_not_shut_out_another(tmp_path: Path, real_index: IndexDirectory) -> None:
    log = tmp_path / "log"
    body, stop, greedy = form(car_photo(1, 0, (1200, 900))), threading.Event(), Counter[int]()

    def ask_again_and_again() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not stop.is_set():
                headers = {**FORM, "X-Forwarded-For": "192.0.2.1"}
                greedy[client.post("/search", content=body, headers=headers).status_code] += 1

    with running_server(
        real_index.root, log, SEARCH_THREADS="1", MAX_QUEUE="17", TRUSTED_PROXIES="127.0.0.1"
    ) as server:
        clients = [threading.Thread(target=ask_again_and_again) for _ in range(32)]
        for client in clients:
            client.start()
        try:
            eventually(lambda: greedy[429] > 50, "the greedy one is refused")
            for _ in range(20):
                modest = server.client.post("/search", files=PHOTO, headers={"X-Forwarded-For": "192.0.2.2"})
                assert modest.status_code == 200
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert greedy.keys() == {200, 429}
        assert at_work(server) == 0


def test_uploads_together_take_no_more_memory_than_they_may(tmp_path: Path, real_index: IndexDirectory) -> None:
    with running_server(real_index.root, tmp_path / "log", MAX_UPLOADS_BYTES="300000") as server:
        whole = form(bytes(250_000))
        halves = [connect(server) for _ in range(3)]
        try:
            for connection in halves:
                connection.sendall(head(f"Content-Length: {len(whole)}") + whole[:120_000])
            # Whoever comes while the first has the memory for its whole is refused before its body has come.
            eventually(lambda: _refused(server) >= 1, "one is refused")
        finally:
            for connection in halves:
                connection.close()
        series = 'carsearch_answers_total{code="client_disconnected",route="/search",status="400"}'
        eventually(lambda: metric(server, series) + _refused(server) == 3, "all three are gone")
        assert server.client.post("/search", files=PHOTO).status_code == 200


def _refused(server: Server) -> float:
    return metric(server, 'carsearch_answers_total{code="overloaded",route="/search",status="429"}')
