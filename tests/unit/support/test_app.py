"""The application in this process: it has its lifespan, and answers several requests at a time."""

from pathlib import Path

import pytest

from indexer.versions import IndexDirectory
from tests.support.app import AppClient, running_app
from tests.support.photos import car_photo


def test_a_search_is_answered_from_the_index_of_the_fake_runtime(api_client: AppClient) -> None:
    answer = api_client.post("/search", files={"file": car_photo(1, 0)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["nearest"]["class"] == "car 1"
    assert answer.json()["nearest"]["score"] > 0.999


def test_requests_are_worked_on_at_the_same_time(api_client: AppClient) -> None:
    replies = [api_client.begin("POST", "/search", files={"file": car_photo(kind, 0)}) for kind in range(3)]
    assert {reply.result().status_code for reply in replies} == {200}


def test_an_app_without_an_index_starts_and_is_not_ready(tmp_path: Path) -> None:
    with running_app(tmp_path / "none", wait_ready=False) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503


def test_settings_are_those_that_a_test_names(fake_index: IndexDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARSEARCH_MAX_BODY_BYTES", "10")
    with running_app(fake_index.root) as client:
        assert client.post("/search", files={"file": car_photo()}).status_code == 200
    with running_app(fake_index.root, max_body_bytes=10) as client:
        assert client.post("/search", files={"file": car_photo()}).status_code == 413
