"""The proxy, with Compose's templates and values, before real servers: what it passes on, refuses and tries again."""

import base64
import http.server
import json
import shutil
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from bench.serving import free_port
from indexer.build import build_index
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from tests.deploy.calls import MIB, PHOTO, assert_problem, raw
from tests.deploy.nginx import Nginx, needs_nginx, port_of, running_nginx
from tests.support.calls import eventually
from tests.support.photos import KOREAN, car_photo
from tests.support.servers import Server, running_server, wait_for

pytestmark = [pytest.mark.deploy, needs_nginx]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Nginx]:
    """nginx before the one server that all tests share."""
    with running_nginx(tmp_path_factory.mktemp("proxy") / "nginx", [port_of(server.url)]) as running:
        yield running


def same(one: httpx.Response, other: httpx.Response) -> bool:
    """Whether two answers say the same, but for how long it took."""
    first, second = one.json(), other.json()
    return {**first, "timings_ms": 0} == {**second, "timings_ms": 0} and one.status_code == other.status_code


def test_a_search_through_the_proxy_is_the_search(proxy: Nginx, server: Server) -> None:
    through = httpx.post(f"{proxy.url}/search?k=3", files=PHOTO)
    assert through.status_code == 200
    assert same(through, server.client.post("/search?k=3", files=PHOTO))


def test_every_way_in_passes_the_proxy(proxy: Nginx) -> None:
    photo = car_photo(1, 9)
    wanted = httpx.post(f"{proxy.url}/search?k=3", files=PHOTO).json()["results"]
    padded = base64.b64encode(photo + bytes(9 * MIB)).decode()  # 12 MiB of text
    ways: list[dict[str, Any]] = [
        {"content": photo, "headers": {"Content-Type": "image/jpeg"}},
        {"json": {"image": base64.b64encode(photo).decode()}},
        {"json": {"image": padded}},
    ]
    for sent in ways:
        assert httpx.post(f"{proxy.url}/search?k=3", **sent).json()["results"] == wanted
    like = httpx.post(f"{proxy.url}/search?k=3", json={"id": wanted[0]["id"]}).json()["results"]
    assert wanted[0]["id"] not in [hit["id"] for hit in like]


def test_a_batch_of_31_mib_passes_the_proxy_and_another_replica_answers_it(tmp_path: Path, server: Server) -> None:
    photos = [("file", (f"{number}.jpg", car_photo(1, 9) + bytes(MIB))) for number in range(30)]
    with not_ready_server(tmp_path) as empty:
        ports = [port_of(empty.url), port_of(server.url)]
        with running_nginx(tmp_path / "nginx", ports) as nginx:
            answers = [httpx.post(f"{nginx.url}/search/batch?k=1", files=photos, timeout=90) for _ in range(3)]
    for answer in answers:
        assert [entry["result"]["nearest"]["class"] for entry in answer.json()["results"]] == ["car 1"] * 30
    assert {line["route"] for line in nginx.log} == {"/search/batch"}
    assert "503, 200" in {line["upstream_status"] for line in nginx.log}


def test_errors_of_the_server_pass_untouched(proxy: Nginx, server: Server) -> None:
    headers = {"X-Request-Id": "one-and-the-same"}
    through = httpx.post(f"{proxy.url}/search?k=0", files=PHOTO, headers=headers)
    assert_problem(through, 422, "invalid_k")
    assert same(through, server.client.post("/search?k=0", files=PHOTO, headers=headers))


def test_the_documents_and_the_photos_of_the_gallery_work(proxy: Nginx) -> None:
    with httpx.Client(base_url=proxy.url, follow_redirects=True) as client:
        page = client.get("/")
        assert "web/app.js" in page.text
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        assert client.get("/web/app.js").headers["Content-Type"].startswith("text/javascript")
        assert "swagger" in client.get("/docs").text
        assert "/search" in client.get("/openapi.json").json()["paths"]
        image = client.post("/search", files={"file": car_photo(0, 1)}).json()["nearest"]["image"]
        assert client.get(image, params={"width": 160}).headers["Content-Type"] == "image/jpeg"


def test_a_valid_request_id_is_kept_and_any_other_replaced(proxy: Nginx, server: Server) -> None:
    kept = httpx.get(f"{proxy.url}/info", headers={"X-Request-Id": "id-of_a.client"})
    assert kept.headers["X-Request-Id"] == "id-of_a.client"
    made = httpx.get(f"{proxy.url}/info", headers={"X-Request-Id": "not valid"}).headers["X-Request-Id"]
    assert len(made) == 32
    assert made in server.log  # the proxy's id is the server's, too
    assert "id-of_a.client" in server.log


def test_the_list_of_the_gallery_passes_with_its_filter(proxy: Nginx, server: Server) -> None:
    through = httpx.get(f"{proxy.url}/gallery", params={"class": "car 1", "limit": 2})
    assert (through.status_code, through.json()["total"]) == (200, 4)
    assert through.json() == server.client.get("/gallery?class=car%201&limit=2").json()
    longest = "가" * 500  # 4.5 KB in an address
    refused = httpx.get(f"{proxy.url}/gallery", params={"where": longest})
    assert_problem(refused, 422, "invalid_filter")


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6Detrics", "/x/../metrics", "/metrics?x=1"])
def test_metrics_are_not_for_the_world(proxy: Nginx, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert_problem(raw(proxy.port, request.encode()), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "length", "sent", "of_nginx"),
    [
        ("/search", 15 * MIB + 1, 0, True),
        ("/search", 15 * MIB, 15 * MIB, False),
        ("/search/batch", 32 * MIB + 1, 0, True),
        ("/evaluate", 513 * MIB + 1, 0, True),
        ("/evaluate", 512 * MIB + 1, 0, False),  # passed on as it arrives, so the server can say no at once
        ("/info", 65537, 0, True),
        ("/gallery", 32 * MIB + 1, 0, True),
        ("/gallery/a/b.jpg", 15 * MIB + 1, 0, True),
        ("/gallery/duplicates", 15 * MIB + 1, 0, True),
    ],
)
def test_each_route_has_its_limit(proxy: Nginx, path: str, length: int, sent: int, of_nginx: bool) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    answer = raw(proxy.port, head.encode() + bytes(sent))
    assert_problem(answer, 413, "payload_too_large")
    assert ("proxy" in answer.json()["detail"]) == of_nginx


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405, "method_not_allowed"),
        (b"GET /?" + b"x" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "address_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431, "header_too_large"),
        (b"POST /search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: odd\r\n\r\n", 501, "not_implemented"),
        (b"GET / HTTP/9.0\r\nHost: a\r\n\r\n", 505, "http_version_not_supported"),
    ],
)
def test_what_nginx_itself_refuses_has_the_one_shape(proxy: Nginx, request_: bytes, status: int, code: str) -> None:
    assert_problem(raw(proxy.port, request_), status, code)


def test_a_client_of_http_1_0_is_answered(proxy: Nginx) -> None:
    assert raw(proxy.port, b"GET /readyz HTTP/1.0\r\n\r\n").json() == {"status": "ok"}


def test_without_a_server_the_answer_says_when_to_try_again(tmp_path: Path) -> None:
    with running_nginx(tmp_path / "nginx", [free_port()]) as nginx:
        answer = httpx.post(f"{nginx.url}/search", files=PHOTO)
    assert_problem(answer, 502, "bad_gateway")
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    "begun",
    [
        b"POST /search HTTP/1.1\r\nHost: a\r\nX-Slow",
        b"POST /search HTTP/1.1\r\nHost: a\r\nX-Request-Id: slow\r\nContent-Length: 1000\r\n\r\nfirst",
        b"POST /evaluate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
    ],
)
def test_a_client_that_stops_sending_is_cut_off(tmp_path: Path, server: Server, begun: bytes) -> None:
    ports = [port_of(server.url)]
    with running_nginx(tmp_path / "nginx", ports, PROXY_HEADER_TIMEOUT="1s", PROXY_BODY_TIMEOUT="1s") as nginx:
        assert raw(nginx.port, begun).status_code == 0
    assert " slow " not in server.log  # a search that is not whole never reaches a server


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the header that it was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name in the standard library
        pass


@contextmanager
def running_echo() -> Iterator[int]:
    """An upstream that tells what it was sent; gives its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as echo:
        thread = threading.Thread(target=echo.serve_forever)
        thread.start()
        try:
            yield echo.server_port
        finally:
            echo.shutdown()
            thread.join()


def test_what_a_client_claims_about_itself_is_not_passed_on(tmp_path: Path) -> None:
    claims = {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https", "Forwarded": "for=9.9.9.9"}
    with running_echo() as port, running_nginx(tmp_path / "nginx", [port]) as nginx:
        sent = httpx.get(f"{nginx.url}/info", headers={**claims, "X-Request-Id": "mine"}).json()
    assert (sent["x-forwarded-for"], sent["x-forwarded-proto"], sent["x-request-id"]) == ("127.0.0.1", "http", "mine")
    assert sent["host"] == f"127.0.0.1:{nginx.port}"
    assert "forwarded" not in sent


def test_the_log_is_json_and_tells_nothing_of_what_was_asked(tmp_path: Path, server: Server) -> None:
    with running_nginx(tmp_path / "nginx", [port_of(server.url), free_port()]) as nginx:
        for _ in range(3):  # one meets the port where nobody listens
            assert httpx.post(f"{nginx.url}/search?class=secret-class", files=PHOTO).status_code == 422
        assert httpx.post(f"{nginx.url}/search", content=bytes(16 * MIB)).status_code == 413
        assert httpx.get(f"{nginx.url}/gallery/secret%20photo.jpg/image").status_code == 404
        assert httpx.get(f"{nginx.url}/gallery?where=secret").status_code == 422
        assert httpx.get(f"{nginx.url}/secret").status_code == 404
        assert httpx.get(f"{nginx.url}/readyz").status_code == 200
        httpx.get(f"{nginx.url}/info", headers={"X-Request-Id": "last"})
    lines = nginx.log  # written when the request is over, so all are there when nginx has ended
    asked = [("POST", "/search")] * 4 + [("GET", "/gallery/{identity}/image"), ("GET", "other"), ("GET", "/info")]
    asked += [("GET", "/gallery")]
    assert sorted((line["method"], line["route"]) for line in lines) == sorted(asked)
    assert [line["status"] for line in lines if line["request_id"] == "last"] == [200]
    assert any(line["upstream_status"] == "502, 422" for line in lines)
    assert "secret" not in json.dumps(lines) + nginx.errors


@contextmanager
def not_ready_server(folder: Path, **settings: str) -> Iterator[Server]:
    """A server whose index directory is empty."""
    (folder / "empty").mkdir()
    with running_server(folder / "empty", folder / "not-ready.log", wait_ready=False, **settings) as running:
        yield running


def test_a_search_that_one_replica_cannot_answer_is_answered_by_another(tmp_path: Path, server: Server) -> None:
    with not_ready_server(tmp_path) as empty:
        ports = [port_of(empty.url), port_of(server.url)]
        with running_nginx(tmp_path / "nginx", ports) as nginx:
            answers = [httpx.post(f"{nginx.url}/search", files=PHOTO).status_code for _ in range(10)]
            ready = [httpx.get(f"{nginx.url}/readyz").status_code for _ in range(4)]
    assert answers + ready == [200] * 14
    assert "503, 200" in {line["upstream_status"] for line in nginx.log}


def test_changes_pass_the_proxy_and_another_replica_makes_them(tmp_path: Path, real_index: IndexDirectory) -> None:
    key = "admin-0123456789abc"
    (tmp_path / "keys").write_text(f"{key} shop admin\n")
    settings: dict[str, Any] = {"KEYS_FILE": str(tmp_path / "keys"), "DELTA_DIR": str(tmp_path / "delta")}
    with (
        not_ready_server(tmp_path, **settings) as empty,
        running_server(real_index.root, tmp_path / "log", **settings) as server,
        running_nginx(tmp_path / "nginx", [port_of(empty.url), port_of(server.url)]) as nginx,
        httpx.Client(base_url=nginx.url, headers={"X-Api-Key": key}, timeout=30) as client,
    ):
        photo: dict[str, Any] = {
            "content": car_photo(7, 1) + bytes(8 * MIB),
            "headers": {"Content-Type": "image/jpeg"},
        }
        for name in ("가/1 %.jpg", "secret.jpg", "secret.jpg"):
            answer = client.put(f"/gallery/{quote(name)}", params={"class": "car 7"}, **photo)
            assert (answer.status_code, answer.json()["id"]) == (200, name)
        assert client.get(answer.json()["image"]).headers["Content-Type"] == "image/jpeg"
        many = [("file", (f"{number}.jpg", car_photo(8, number) + bytes(8 * MIB))) for number in range(3)]
        while (answer := client.post("/gallery", files=many)).status_code == 503:  # a form is not sent twice
            assert_problem(answer, 503, "not_ready")
        assert [one["photo"]["id"] for one in answer.json()["photos"]] == ["0.jpg", "1.jpg", "2.jpg"]
        assert client.delete("/gallery/secret.jpg").status_code == 204
        assert_problem(client.delete("/gallery/secret.jpg"), 404, "unknown_item")
        foreign = client.delete("/gallery/0.jpg", headers={"Origin": "https://shop.example"})
        assert_problem(foreign, 403, "forbidden")
        own = client.delete("/gallery/0.jpg", headers={"Origin": nginx.url})
        assert own.status_code == 204
    assert {line["route"] for line in nginx.log} == {"/gallery", "/gallery/{identity}", "/gallery/{identity}/image"}
    assert "secret" not in json.dumps(nginx.log) + nginx.errors


def test_duplicates_are_looked_for_on_another_replica_and_one_page_at_a_time(
    tmp_path: Path, gallery: Path, shipped_embedder: Embedder
) -> None:
    index = IndexDirectory(tmp_path / "index")
    shutil.copytree(gallery, tmp_path / "gallery")
    first = min((tmp_path / "gallery").rglob("*.jpg"))
    shutil.copy(first, first.parent / "copy.jpg")
    build_index(tmp_path / "gallery", index, shipped_embedder)
    with (
        not_ready_server(tmp_path) as empty,
        running_server(index.root, tmp_path / "log") as server,
        running_nginx(tmp_path / "nginx", [port_of(empty.url), port_of(server.url)]) as nginx,
    ):
        for _ in range(4):
            answer = httpx.post(f"{nginx.url}/gallery/duplicates", params={"min_score": 1}, timeout=70)
            assert [one["same_file"] for one in answer.json()["duplicates"]] == [True]
        with socket.create_connection(("127.0.0.1", nginx.port)) as first_page:
            first_page.sendall(b"POST /gallery/duplicates HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            eventually(lambda: httpx.post(f"{nginx.url}/gallery/duplicates").status_code == 429, "the second one waits")
            assert httpx.get(f"{nginx.url}/gallery/classes").status_code == 200
    assert {line["route"] for line in nginx.log} == {"/gallery/duplicates", "/gallery/classes"}
    assert "503, 200" in {line["upstream_status"] for line in nginx.log}


def test_an_evaluation_is_not_asked_for_twice(tmp_path: Path, server: Server, gallery: Path) -> None:
    shutil.make_archive(str(tmp_path / "photos"), "zip", gallery)
    archive = (tmp_path / "photos.zip").read_bytes()
    assert zipfile.is_zipfile(tmp_path / "photos.zip")

    def in_turn(text: str) -> str:
        return text.replace("max_fails=1", "max_fails=0")

    with (
        not_ready_server(tmp_path) as empty,
        running_nginx(tmp_path / "nginx", [port_of(empty.url), port_of(server.url)], in_turn) as nginx,
    ):
        answers = [httpx.post(f"{nginx.url}/evaluate", files={"archive": archive}, timeout=60) for _ in range(4)]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 503} == {"not_ready"}
    assert sorted(line["upstream_status"] for line in nginx.log) == ["200", "200", "503", "503"]


def test_replicas_that_all_failed_are_asked_all_the_same(tmp_path: Path, real_index: IndexDirectory) -> None:
    with not_ready_server(tmp_path) as late, running_nginx(tmp_path / "nginx", [port_of(late.url)]) as nginx:
        for _ in range(4):  # its own answer, not nginx's 502 for having nobody left to ask
            assert_problem(httpx.post(f"{nginx.url}/search", files=PHOTO), 503, "not_ready")
        parts = shutil.ignore_patterns(CURRENT_NAME)
        shutil.copytree(real_index.root, tmp_path / "empty", dirs_exist_ok=True, ignore=parts)
        shutil.copy(real_index.root / CURRENT_NAME, tmp_path / "empty")
        wait_for(late, "/readyz")
        assert httpx.post(f"{nginx.url}/search", files=PHOTO).status_code == 200


def test_photos_of_classes_in_any_script_keep_their_address(proxy: Nginx) -> None:
    found = httpx.post(f"{proxy.url}/search", params={"class": KOREAN}, files=PHOTO).json()
    assert {hit["class"] for hit in found["results"]} == {KOREAN}


def test_a_refusal_that_comes_while_a_large_photo_is_sent_is_passed_on(
    tmp_path: Path, real_index: IndexDirectory
) -> None:
    refusing = "tests.soak.full_server"
    with (
        running_server(real_index.root, tmp_path / "log", True, refusing) as server,
        running_nginx(tmp_path / "nginx", [port_of(server.url)]) as nginx,
    ):
        answers = [httpx.post(f"{nginx.url}/search", files={"file": bytes(9_000_000)}, timeout=30) for _ in range(5)]
    for answer in answers:
        assert_problem(answer, 429, "overloaded")
    assert [line["upstream_status"] for line in nginx.log if line["route"] == "/search"] == ["429"] * 5
