"""API keys and TLS behind the proxy, as API_KEYS and docker/tls.yml turn them on."""

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from bench.serving import free_port
from indexer.versions import IndexDirectory
from tests.deploy.calls import PHOTO, assert_problem, raw
from tests.deploy.nginx import Nginx, needs_nginx, port_of, running_nginx, unchanged
from tests.support.calls import eventually
from tests.support.servers import Server, running_server

pytestmark = [pytest.mark.deploy, needs_nginx]
SEARCH_KEY = "0123456789abcdef" * 4  # as long as `openssl rand -hex 32` makes them
ADMIN_KEY = "fedcba9876543210" * 4


class Keyed(NamedTuple):
    """A server that asks for keys, and the proxy before it."""

    nginx: Nginx
    server: Server


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory) -> Iterator[Keyed]:
    """A server with a key of each scope, behind the proxy."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text(f"{SEARCH_KEY} alice search\n{ADMIN_KEY} bob admin\n")
    keys = str(folder / "keys")
    with (
        running_server(real_index.root, folder / "log", KEYS_FILE=keys, TRUSTED_PROXIES="127.0.0.1") as server,
        running_nginx(folder / "nginx", [port_of(server.url)]) as nginx,
    ):
        yield Keyed(nginx, server)


@pytest.mark.parametrize("headers", [{}, {"X-Api-Key": "wrong"}, {"X-Api-Key": ""}, {"Authorization": "Bearer wrong"}])
def test_without_a_key_the_server_refuses(keyed: Keyed, headers: dict[str, str]) -> None:
    headers = {**headers, "X-Request-Id": f"refused-{len(headers)}"}
    assert_problem(httpx.post(f"{keyed.nginx.url}/search", files=PHOTO, headers=headers), 401, "unauthorized")
    assert headers["X-Request-Id"] in keyed.server.log


@pytest.mark.parametrize("headers", [{"X-Api-Key": SEARCH_KEY}, {"Authorization": f"Bearer {SEARCH_KEY}"}])
def test_a_key_passes_the_proxy(keyed: Keyed, headers: dict[str, str]) -> None:
    assert httpx.post(f"{keyed.nginx.url}/search", files=PHOTO, headers=headers).status_code == 200


def test_the_link_of_a_hit_needs_no_key_and_no_client_says_the_prefix(keyed: Keyed) -> None:
    headers = {"X-Api-Key": SEARCH_KEY, "X-Forwarded-Prefix": "/elsewhere"}
    found = httpx.post(f"{keyed.nginx.url}/search", files=PHOTO, headers=headers).json()["nearest"]
    assert found["image"].startswith("/gallery/")
    for ask in (httpx.get, httpx.head):
        assert ask(f"{keyed.nginx.url}{found['image']}").headers["content-type"] == "image/jpeg"
    assert httpx.head(f"{keyed.nginx.url}/readyz").status_code == 200
    assert_problem(httpx.get(f"{keyed.nginx.url}{found['image'].partition('?')[0]}"), 401, "unauthorized")


def test_evaluations_are_listed_for_operators(keyed: Keyed) -> None:
    listed = httpx.get(f"{keyed.nginx.url}/evaluations", headers={"X-Api-Key": ADMIN_KEY})
    assert (listed.status_code, listed.json()) == (200, {"evaluations": []})
    told = listed.headers["x-request-id"], "/evaluations"
    eventually(
        lambda: told in [(line["request_id"], line["route"]) for line in keyed.nginx.log], "nginx's line is there"
    )


def test_a_key_opens_what_is_in_its_scope(keyed: Keyed) -> None:
    def evaluate(key: str) -> httpx.Response:
        return httpx.post(f"{keyed.nginx.url}/evaluate", json={"dataset": "none"}, headers={"X-Api-Key": key})

    assert_problem(evaluate(SEARCH_KEY), 403, "forbidden")
    assert_problem(evaluate(ADMIN_KEY), 404, "unknown_dataset")


def test_the_probes_need_no_key(keyed: Keyed) -> None:
    assert [httpx.get(f"{keyed.nginx.url}{path}").status_code for path in ("/livez", "/readyz")] == [200, 200]


def test_a_key_is_in_no_log(keyed: Keyed) -> None:
    for key in (SEARCH_KEY, "a key that nobody knows"):
        headers = {"X-Api-Key": key, "Authorization": f"Bearer {key}", "X-Request-Id": "told"}
        httpx.post(f"{keyed.nginx.url}/search", files=PHOTO, headers=headers)
        httpx.post(f"{keyed.nginx.url}/search", content=b"no form", headers=headers)
    written = json.dumps(keyed.nginx.log) + keyed.nginx.errors + keyed.server.log
    assert "told" in written
    assert "key that nobody knows" not in written
    assert SEARCH_KEY not in written


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_serves_and_the_plain_port_says_where(tmp_path: Path, server: Server) -> None:
    certificate, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    tls = {
        "PROXY_MODE": "tls",
        "TLS_LISTEN": f"127.0.0.1:{port}",
        "TLS_PORT": str(port),
        "TLS_CERTIFICATES": str(tmp_path),
    }
    context = ssl.create_default_context(cafile=certificate)
    with running_nginx(tmp_path / "nginx", [port_of(server.url)], unchanged, **tls) as nginx:
        with httpx.Client(verify=context, follow_redirects=True) as client:
            answer = client.post(f"{nginx.url}/search?k=2", files=PHOTO)
            assert (answer.status_code, len(answer.history)) == (200, 1)
            assert str(answer.url) == f"https://127.0.0.1:{port}/search?k=2"
            assert_problem(client.get(f"https://127.0.0.1:{port}/metrics"), 404, "not_found")
        assert [httpx.get(f"{nginx.url}{path}").status_code for path in ("/livez", "/readyz", "/info")] == [
            200,
            200,
            308,
        ]
        assert_problem(raw(port, b"GET /info HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "bad_request")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(f"https://127.0.0.1:{port}/info", verify=context).status_code == 200
