"""Liveness and readiness: before there is an index, while versions are swapped, and while the server drains."""

from pathlib import Path
from typing import Any

import pytest

from indexer.build import build_index
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from tests.api.conftest import Gate
from tests.support.app import AppClient, running_app
from tests.support.calls import assert_problem, eventually, metric, search
from tests.support.photos import car_photo, write_gallery


def info(client: AppClient) -> dict[str, Any]:
    told: dict[str, Any] = client.get("/info").json()
    return told


def serves(client: AppClient, version: str) -> bool:
    return bool((info(client)["versions"] or {}).get("index") == version)


def test_an_application_waits_for_its_index_and_then_keeps_it(tmp_path: Path, fake_embedder: Embedder) -> None:
    index = IndexDirectory(tmp_path / "index")
    with running_app(index.root, wait_ready=False) as client:
        assert client.get("/livez").status_code == 200
        for method, path in (
            ("GET", "/readyz"),
            ("POST", "/search"),
            ("GET", "/gallery/classes"),
            ("GET", "/gallery/x/image"),
            ("POST", "/evaluate"),
        ):
            waiting = client.request(method, path)
            assert_problem(waiting, "not_ready", str(tmp_path))
            assert int(waiting.headers["retry-after"]) == 2
        told = info(client)
        assert (told["ready"], told["versions"], told["photos"], told["runtime"]) == (False, None, 0, None)

        version = build_index(write_gallery(tmp_path / "gallery"), index, fake_embedder).version
        eventually(lambda: client.get("/readyz").status_code == 200, "it is ready")
        assert search(client, car_photo(1, 0))["versions"]["index"] == version
        told = info(client)
        assert (told["ready"], told["photos"], told["classes"], told["runtime"]) == (True, 12, 3, "fake")
        assert metric(client, "carsearch_ready") == 1


def test_a_request_keeps_the_version_that_it_began_with(tmp_path: Path, fake_embedder: Embedder, gate: Gate) -> None:
    index = IndexDirectory(tmp_path / "index")
    old = build_index(write_gallery(tmp_path / "old"), index, fake_embedder).version
    with running_app(index.root) as client:
        held = client.begin("POST", "/search", files={"file": gate.photo})
        gate.wait_until_entered()
        new = build_index(write_gallery(tmp_path / "new", first_kind=20), index, fake_embedder).version
        eventually(lambda: serves(client, new), "the new version is served")
        assert search(client, car_photo(20, 0))["nearest"]["class"] == "car 20"
        gate.open()
        answer = held.result().json()
        assert answer["versions"]["index"] == old
        assert {hit["class"] for hit in answer["results"]} <= {"car 1", "car 2", "아반떼"}


def test_a_bad_version_is_told_and_the_old_one_goes_on(tmp_path: Path, fake_embedder: Embedder) -> None:
    index = IndexDirectory(tmp_path / "index")
    good = build_index(write_gallery(tmp_path / "gallery"), index, fake_embedder).version
    with running_app(index.root) as client:
        (index.root / CURRENT_NAME).write_text("none\n")
        eventually(lambda: info(client)["refused_version"] == "none", "the version is refused")
        assert client.get("/readyz").status_code == 200
        assert search(client, car_photo(1, 0))["versions"]["index"] == good
        assert metric(client, "carsearch_index_refused") == 1


def test_a_server_that_drains_says_so_and_goes_on_answering(
    api_client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metric(api_client, "carsearch_draining") == 0
    monkeypatch.setattr(api_client.state.draining, "is_set", lambda: True)
    refused = api_client.get("/readyz")
    assert_problem(refused, "draining")
    assert int(refused.headers["retry-after"]) == 2
    assert api_client.get("/livez").status_code == 200
    assert search(api_client, car_photo(1, 0))["nearest"]["class"] == "car 1"
    assert metric(api_client, "carsearch_draining") == 1


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_answer_who_asks_for_the_head_alone(path: str, api_client: AppClient) -> None:
    assert api_client.request("HEAD", path).status_code == 200
    assert api_client.post(path).headers["allow"] == "GET, HEAD"
