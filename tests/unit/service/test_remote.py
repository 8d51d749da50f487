"""`carsearch search --url`: a server's answers as those of an index, and every way to get none in one sentence."""

import csv
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.serving import free_port
from indexer.versions import IndexDirectory
from service.cli import remote
from service.http.limits import Limits
from tests.conftest import Printed
from tests.support.photos import car_photo
from tests.support.wire import WireServer, wire_server

Search = Callable[..., Printed]
KEY = "0123456789abcdef"
HIT = {"rank": 1, "id": "car/1.jpg", "class": "car", "score": 0.5, "image": "/gallery/car/1.jpg/image", "metadata": {}}
FOUND = {"nearest": HIT, "results": [HIT], "decision": None, "versions": {"index": "1"}, "timings_ms": {"total": 1}}
Answer = tuple[int, bytes, dict[str, str]]
ANSWER: Answer = (200, json.dumps(FOUND).encode(), {})


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("SSL_CERT")]:
        monkeypatch.delenv(name)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(car_photo())
    return path


@pytest.fixture
def search(carsearch: Search, photo: Path) -> Search:
    """`carsearch search photo.jpg --url ...`"""
    return lambda url, *more: carsearch("search", photo, "--url", url, *more)


@dataclass
class Canned:
    """A server of some other kind: answers of status, body and headers in their order, the last one again and again."""

    answers: list[Answer]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """Paths of the requests."""
    clients: set[tuple[str, int]] = field(default_factory=set)
    """Addresses of the connections."""


@contextmanager
def canned(*answers: Answer, certificate: Path | None = None) -> Iterator[Canned]:
    server = Canned(list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            server.asked.append(self.path)
            server.clients.add(self.client_address)
            status, body, headers = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            listening.socket = context.wrap_socket(listening.socket, server_side=True)
        listening.handle_error = lambda *_: None  # type: ignore[method-assign]
        listening.daemon_threads = True
        server.url = f"{'https' if certificate else 'http'}://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


def assert_one_sentence(printed: Printed, words: str) -> None:
    assert (printed.returncode, printed.stdout) == (1, ""), printed.stderr
    assert printed.stderr.startswith("error: ")
    assert printed.stderr.endswith(".\n") or printed.stderr.endswith(")\n")
    assert printed.stderr.count("\n") == 1
    assert words in printed.stderr


@pytest.fixture(scope="module")
def keyed(fake_index: IndexDirectory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireServer]:
    """A server below a prefix that asks for a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY} alice search\n")
    with wire_server(fake_index.root, Limits(), keys_file=keys, root_path="/cars") as server:
        yield server


def test_a_server_with_a_key_is_asked_below_its_prefix(
    search: Search, keyed: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_option = search(f"{keyed.url}/cars/", "-k", "2", "--json", "--key", KEY)
    assert by_option.returncode == 0, by_option.stderr
    answer = json.loads(by_option.stdout)
    assert list(answer) == ["nearest", "results", "decision", "versions"]
    assert [list(hit) for hit in answer["results"]] == [["rank", "id", "class", "score", "metadata"]] * 2
    monkeypatch.setenv("CARSEARCH_KEY", KEY)
    assert search(keyed.url, "-k", "2", "--json").stdout == by_option.stdout


@pytest.mark.parametrize("key", [(), ("--key", "another-key-of-mine")])
def test_a_key_that_the_server_does_not_know_is_told_with_the_two_ways_to_give_one(
    search: Search, keyed: WireServer, key: tuple[str, ...]
) -> None:
    told = f"error: {keyed.url} asks for a key that it knows: give it with --key, or in CARSEARCH_KEY.\n"
    assert_one_sentence(search(keyed.url, *key), told)


def test_a_key_that_can_be_none_is_not_printed(search: Search) -> None:
    printed = search("http://127.0.0.1:1", "--key", f"{KEY}\r")
    assert_one_sentence(printed, "The key of --key or CARSEARCH_KEY has a character that no key has.")
    assert KEY not in printed.stderr


def test_a_server_s_refusal_is_told_with_its_code(search: Search, keyed: WireServer) -> None:
    key = ("--key", KEY)
    assert_one_sentence(
        search(keyed.url, *key, "-k", "0"), "error: k must be a whole number from 1 to 100. (invalid_k)\n"
    )
    assert_one_sentence(search(keyed.url, *key, "--class", "spaceship"), "no class of that name")
    assert_one_sentence(search(keyed.url, *key, "--where", "price <"), "(invalid_filter)")
    assert_one_sentence(search(f"{keyed.url}/bikes", *key), "(not_found)")


def test_many_photos_are_asked_for_over_one_connection(carsearch: Search, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"photo")
    body = json.dumps({"code": "image_undecodable", "detail": "The image is damaged."}).encode()
    with canned(ANSWER, (422, body, {}), ANSWER) as server:
        printed = carsearch("search", tmp_path, "--url", server.url, "--class", "car", "--class", "bus", "--out", "-")
    assert printed.returncode == 0, printed.stderr
    assert printed.stderr.startswith(f"1 of 3 photos cannot be read; the first is {tmp_path}/1.jpg: The image is dam")
    lines = list(csv.DictReader(printed.stdout.splitlines()))
    assert [line["id"] for line in lines] == ["car/1.jpg", "", "car/1.jpg"]
    assert [line["error_code"] for line in lines] == ["", "image_undecodable", ""]
    assert server.asked == ["/search?k=5&class=car&class=bus"] * 3
    assert len(server.clients) == 1


def test_a_problem_that_every_photo_would_meet_ends_the_search(carsearch: Search, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"photo")
    problem = json.dumps({"code": "forbidden", "detail": "Not with this key."}).encode()
    with canned((403, problem, {})) as server:
        printed = carsearch("search", tmp_path, "--url", server.url, "--json")
    assert (printed.stderr, len(server.asked)) == ("error: Not with this key. (forbidden)\n", 1)


def test_a_busy_server_is_asked_again_when_it_says(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    busy = json.dumps({"code": "overloaded", "detail": "The server is busy."}).encode()
    answers = [(429, busy, {"Retry-After": after}) for after in ("2", "tomorrow", "9999")]
    with canned(*answers, ANSWER) as server:
        assert search(server.url).returncode == 0
    assert waited == [2, 1, 30]
    with canned(answers[0]) as server:
        assert_one_sentence(search(server.url), "The server is busy. (overloaded)")
    assert len(server.asked) == 5


def test_no_server_is_told(search: Search) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert_one_sentence(search(url), f"{url} cannot be asked: Connection refused.")
    assert_one_sentence(search("http://nowhere.invalid"), "http://nowhere.invalid cannot be asked: ")
    for url in ("http://127.0.0.1:99999", "http://two..dots"):
        assert_one_sentence(search(url), f"{url} cannot be asked: ")


@pytest.mark.parametrize(
    "url", ["nonsense", "127.0.0.1:8000", "localhost:8000", "http://", "http://host:port", "ftp://host"]
)
def test_what_is_no_address_is_told(search: Search, url: str) -> None:
    assert_one_sentence(search(url), f"{url} is no address of a server, as http://127.0.0.1:8000 is.")


def test_a_server_that_never_answers_is_told(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        printed = search("http://user:word@{}:{}".format(*listening.getsockname()))
    assert_one_sentence(printed, "did not answer within 0.1 s.")
    assert "word" not in printed.stderr


def test_a_server_that_hangs_up_is_told(search: Search) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            connection, _ = listening.accept()
            connection.recv(100)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert_one_sentence(search("http://{}:{}".format(*listening.getsockname())), " cannot be asked: ")
        thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((200, body) for body in (b"", b"[]", b"<html>", b"\xff\xfe", b'{"results": [{"id": 1}]}')),
        *((404, b"{}"), (413, b"5"), (502, b"<html>")),
    ],
)
def test_a_server_of_another_kind_is_told(search: Search, status: int, body: bytes) -> None:
    with canned((status, body, {})) as server:
        told = f"{server.url} answers with status {status}, but not as carsearch."
        assert_one_sentence(search(server.url), told)


def test_where_a_server_has_moved_is_told(search: Search) -> None:
    with canned((301, b"", {"Location": "https://cars.example/search"})) as server:
        assert_one_sentence(search(server.url), "leads to https://cars.example/search; give --url")


def test_a_socks_proxy_is_told_with_its_variable(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with canned(ANSWER) as server:
        assert_one_sentence(search(server.url), "ALL_PROXY names a SOCKS proxy, which needs a package; install it with")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert search(server.url).returncode == 0


def test_a_proxy_that_does_not_answer_or_is_none_is_told_with_its_variable(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{free_port()}")
    assert_one_sentence(search("http://cars.example"), "http://cars.example cannot be asked through the proxy of HTTP_")
    for proxy in ("socks4://127.0.0.1:1", "http://host:port"):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert_one_sentence(search("http://cars.example"), "HTTP_PROXY names a proxy that cannot be used: ")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bad_file_of_certificates_is_told(
    search: Search, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert_one_sentence(search("https://127.0.0.1:1"), "SSL_CERT_FILE names no file of certificates: ")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_certificate_that_does_not_verify_is_told(
    search: Search, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = tmp_path / "own.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=127.0.0.1 -days 2"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {pem} -out {tmp_path}/certificate.pem"
    subprocess.run(command.split(), check=True, capture_output=True)
    with pem.open("a") as file:
        file.write((tmp_path / "certificate.pem").read_text())
    with canned(ANSWER, certificate=pem) as server:
        printed = search(server.url)
        assert_one_sentence(printed, "self-signed certificate")
        assert "; SSL_CERT_FILE may name certificates to trust.\n" in printed.stderr
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert search(server.url).returncode == 0


@pytest.mark.parametrize("option", ["--index elsewhere", "--runtime openvino", "--explain why.png"])
def test_what_only_an_index_on_this_machine_has_is_refused(search: Search, option: str) -> None:
    printed = search("http://127.0.0.1:1", *option.split())
    assert printed.returncode == 2
    assert "are for an index on this machine, not for --url." in " ".join(printed.stderr.replace("│", "").split())
