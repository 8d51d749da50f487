"""Asking a real server, and what every answer of it must be like."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from service.http.errors import MAX_DETAIL, MEDIA_TYPE, STATUS_OF
from service.http.schemas import Problem
from tests.support.photos import car_photo
from tests.support.servers import PATIENCE_S, Server


def search(server: Server, photo: bytes, **query: Any) -> dict[str, Any]:
    """The answer to a search that must succeed."""
    response = server.client.post("/search", params=query, files={"file": ("photo.jpg", photo)})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def evaluate(server: Server, archive: bytes, *, background: bool = False, **query: Any) -> httpx.Response:
    """POST /evaluate with an archive."""
    headers = {"Prefer": "respond-async"} if background else {}
    return server.client.post("/evaluate", params=query, files={"archive": ("set", archive)}, headers=headers)


def evaluate_named(server: Server, name: str, *, background: bool = False, **query: Any) -> httpx.Response:
    """POST /evaluate with a data set of the server's settings."""
    headers = {"Prefer": "respond-async"} if background else {}
    return server.client.post("/evaluate", params=query, json={"dataset": name}, headers=headers)


def assert_problem(response: httpx.Response, code: str, *secrets: str) -> None:
    """Holds an answer to the one shape of errors; none of `secrets` may stand in it."""
    assert response.headers["content-type"] == MEDIA_TYPE, response.text
    body = response.json()
    assert (response.status_code, body["code"]) == (STATUS_OF[code], code), body
    assert body.keys() == Problem.model_fields.keys()
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert 0 < len(body["detail"]) <= MAX_DETAIL
    assert "Traceback" not in response.text
    for secret in secrets:
        assert secret not in response.text


def assert_unharmed(server: Server, pid: int) -> None:
    """The same process still finds a photo of its gallery."""
    assert search(server, car_photo(0, 0), k=1)["nearest"]["score"] > 0.999
    assert server.process.pid == pid
    assert server.process.poll() is None


def metric(server: Server, series: str) -> float:
    """The value of one metric series, 0 when nothing has been counted in it."""
    for line in server.client.get("/metrics").text.splitlines():
        name, _, value = line.rpartition(" ")
        if name == series:
            return float(value)
    return 0.0


def at_work(server: Server) -> float:
    """Searches and gallery images that wait or are being worked on."""
    return metric(server, "carsearch_queue_waiting") + metric(server, "carsearch_queue_running")


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Waits until something is so; fails saying what never was."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"never happened: {what}")
