"""The server is what its document says, whatever is sent: schemathesis makes requests that follow it, and others."""

import json
from pathlib import Path

from tests.soak.fuzz.api import fuzz_server, run_schemathesis
from tests.support.servers import Server, running_server

SECONDS = 15
SEED = ("--seed", "6")
"""The suite tries the same each time; `make fuzz` tries others."""

ONE_PATH = ("--phases", "coverage", "--include-path", "/search", *SEED)


def test_no_answer_is_5xx_and_each_is_one_that_the_document_names(server: Server) -> None:
    pid = server.process.pid
    done = fuzz_server(server.url, SECONDS, *SEED)
    assert done.returncode == 0, done.stdout[-10_000:]
    assert "14 selected / 17 total" in done.stdout
    assert "Coverage" in done.stdout
    assert "Stateful" in done.stdout
    assert server.process.poll() is None
    assert server.process.pid == pid
    assert server.client.get("/readyz").status_code == 200


def test_an_answer_that_the_document_does_not_name_is_found(server: Server, tmp_path: Path) -> None:
    document = server.client.get("/openapi.json").json()
    answers = document["paths"]["/search"]["post"]["responses"]
    del answers["422"], answers["default"]
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    done = run_schemathesis(str(path), 60, "--url", server.url, *ONE_PATH)
    assert done.returncode == 1, done.stdout[-10_000:]
    assert "Undocumented" in done.stdout, done.stdout[-3000:]


def test_an_answer_of_5xx_is_found(tmp_path: Path) -> None:
    with running_server(tmp_path / "no-index", tmp_path / "log", wait_ready=False) as server:
        done = fuzz_server(server.url, 60, *ONE_PATH)
    assert done.returncode == 1, done.stdout[-10_000:]
    assert "Server error" in done.stdout
