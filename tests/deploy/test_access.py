"""Who is let in: API keys and TLS at the proxy, as docker/keys.yml and docker/tls.yml turn them on."""

import json
import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.deploy.calls import MIB, PHOTO, assert_problem, raw
from tests.deploy.nginx import needs_nginx, port_of, running_nginx, unchanged
from tests.support.servers import Server, free_port

pytestmark = needs_nginx


def test_with_keys_only_those_who_have_one_are_answered(tmp_path: Path, server: Server) -> None:
    key = "0123456789abcdef" * 4  # as long as `openssl rand -hex 32` makes them
    (tmp_path / "keys").write_text(f'"{key}" "alice";\n"another" "bob";\n')
    with running_nginx(tmp_path / "nginx", [port_of(server.url)], API_KEYS_FILE=str(tmp_path / "keys")) as nginx:
        for headers in ({}, {"X-Api-Key": "wrong"}, {"X-Api-Key": ""}):
            assert_problem(httpx.post(f"{nginx.url}/search", files=PHOTO, headers=headers), 401, "unauthorized")
            assert_problem(httpx.get(f"{nginx.url}/docs", headers=headers), 401, "unauthorized")
            assert_problem(
                httpx.post(f"{nginx.url}/search", content=bytes(12 * MIB), headers=headers), 401, "unauthorized"
            )
        assert httpx.post(f"{nginx.url}/search", files=PHOTO, headers={"X-Api-Key": key}).status_code == 200
        assert_problem(httpx.get(f"{nginx.url}/nowhere", headers={"X-Api-Key": "another"}), 404, "not_found")
        assert [httpx.get(f"{nginx.url}{path}").status_code for path in ("/livez", "/readyz")] == [200, 200]
    assert [line["key"] for line in nginx.log if line["status"] in (200, 404)] == ["alice", "bob"]
    assert key not in json.dumps(nginx.log) + nginx.errors


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
