"""The log of a server as JSON: one line a request, with its id and times, and nothing of what was sent."""

import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from indexer.versions import IndexDirectory
from service.observability.logging import JsonFormatter, request_id
from service.settings import load_settings
from tests.support.photos import car_photo
from tests.support.servers import running_server

SENT = "Korean 아반떼 \x1b[31m"


def lines(log: str) -> list[dict[str, Any]]:
    """Every line of a log must be one JSON object."""
    return [json.loads(line) for line in log.splitlines()]


def test_each_request_is_one_line_of_json_and_holds_nothing_that_was_sent(
    tmp_path: Path, real_index: IndexDirectory
) -> None:
    photo = car_photo(0, 0)
    with running_server(real_index.root, tmp_path / "log", LOG_FORMAT="json") as server:
        found = httpx.post(f"{server.url}/search", files={"file": (SENT, photo)}, headers={"X-Request-Id": "mine-1"})
        server.client.post("/search", params={"class": SENT}, files={"file": photo})
        server.client.post("/search", files={"file": SENT.encode()})
        server.client.post("/search", files={"file": photo[:600]})
        server.client.get("/" + quote(SENT))
        for _ in range(3):
            server.client.get("/livez")
        server.client.request("REPORT", "/readyz")
    log = server.log
    requests = [line for line in lines(log) if line["message"] == "request"]
    # The polls by which the test waited for the server are no lines, but for those before it was ready.
    told = [
        (line["method"], line["route"], line["status"], line["code"])
        for line in requests
        if line["code"] != "not_ready"
    ]
    assert told == [
        ("POST", "/search", 200, "ok"),
        ("POST", "/search", 422, "unknown_class"),
        ("POST", "/search", 415, "unsupported_image_format"),
        ("POST", "/search", 422, "image_undecodable"),
        ("GET", "none", 404, "not_found"),
        ("_OTHER", "/readyz", 405, "method_not_allowed"),
    ]
    assert [line["cause"] for line in requests if "cause" in line] == ["OSError"]  # what the decoder raised
    first = next(line for line in requests if line["route"] == "/search")
    assert first["request_id"] == found.headers["x-request-id"] == "mine-1"
    assert first["index"] == real_index.current()
    assert first["stages_ms"].keys() == {"queue", "decode", "forward", "search"}
    assert first["took_ms"] >= sum(first["stages_ms"].values())
    assert len(photo) < first["received_bytes"] < len(photo) + 1000
    assert {line["level"] for line in requests} == {"info"}
    for sent in ("아반떼", "\\uc544", "REPORT", quote("아반떼")):
        assert sent not in log


def test_a_record_tells_its_time_its_traceback_and_its_request_and_stays_one_line() -> None:
    token = request_id.set("an-id")
    try:
        raise ValueError("two\nlines")
    except ValueError as problem:
        details = (ValueError, problem, problem.__traceback__)
        record = logging.LogRecord("carsearch", logging.ERROR, "file", 1, "failed: %s", ("a\nb \x1b",), details)
        text = JsonFormatter().format(record)
    finally:
        request_id.reset(token)
    told = json.loads(text)
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    assert (told["level"], told["logger"], told["message"]) == ("error", "carsearch", "failed: a\nb \x1b")
    assert told["request_id"] == "an-id"
    assert told["time"].endswith("+00:00")
    assert told["exception"].endswith("ValueError: two\nlines")


def test_lines_are_for_people_unless_json_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().log_format == "text"
    monkeypatch.setenv("CARSEARCH_LOG_FORMAT", "json")
    assert load_settings().log_format == "json"
