"""Request ids, the line of each request, and when an answer ends its connection."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from indexer.versions import IndexDirectory
from service.observability.logging import JsonFormatter
from service.settings import load_settings
from tests.support.app import AppClient, running_app
from tests.support.bodies import FORM, form
from tests.support.calls import assert_problem, eventually
from tests.support.photos import car_photo

SENT = "Korean 아반떼 \x1b[31m"
PHOTO = car_photo(0, 0)
MAX_BODY_BYTES = load_settings().max_body_bytes


class Lines:
    """What is written to the log as JSON; every line must be one object."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def requests(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if line["message"] == "request"]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The log of all applications in this process, in JSON."""
    found, log = Lines(), logging.getLogger("carsearch")
    handler, level = logging.StreamHandler(found.stream), log.level
    handler.setFormatter(JsonFormatter())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield found
    log.setLevel(level)
    log.removeHandler(handler)


@pytest.mark.parametrize(
    ("offered", "kept"), [("abc-1.2_Z", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("ä", False)]
)
def test_a_request_id_is_taken_over_when_it_is_harmless(api_client: AppClient, offered: str, kept: bool) -> None:
    response = api_client.get("/nowhere", headers=[(b"X-Request-Id", offered.encode())])
    assert (response.headers["x-request-id"] == offered) is kept
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_each_request_has_an_id_of_its_own(api_client: AppClient) -> None:
    ids = {api_client.get("/info").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_a_search_is_one_line_with_its_index_and_stages(
    api_client: AppClient, fake_index: IndexDirectory, lines: Lines
) -> None:
    found = api_client.post("/search", files={"file": (SENT, PHOTO)}, headers={"X-Request-Id": "mine-1"})
    (line,) = lines.requests
    assert line["request_id"] == found.headers["x-request-id"] == "mine-1"
    assert (line["method"], line["route"], line["status"], line["code"]) == ("POST", "/search", 200, "ok")
    assert (line["index"], line["level"]) == (fake_index.current(), "info")
    assert line["stages_ms"].keys() == {"queue", "decode", "forward", "search"}
    assert line["took_ms"] >= sum(line["stages_ms"].values()) - 1
    assert len(PHOTO) < line["received_bytes"] < len(PHOTO) + 1000


def test_lines_of_what_goes_wrong_hold_nothing_that_was_sent(api_client: AppClient, lines: Lines) -> None:
    api_client.post("/search", params={"class": SENT}, files={"file": PHOTO})
    api_client.post("/search", files={"file": SENT.encode()})
    api_client.post("/search", files={"file": (SENT, PHOTO[:600])})
    api_client.get("/" + quote(SENT))
    api_client.request("REPORT", "/readyz")
    api_client.post("/search", content=b"x" * 100, headers={SENT.encode().hex(): SENT.encode().hex()})
    told = [(line["method"], line["route"], line["status"], line["code"]) for line in lines.requests]
    assert told == [
        ("POST", "/search", 422, "unknown_class"),
        ("POST", "/search", 415, "unsupported_image_format"),
        ("POST", "/search", 422, "image_undecodable"),
        ("GET", "none", 404, "not_found"),
        ("_OTHER", "/readyz", 405, "method_not_allowed"),
        ("POST", "/search", 415, "unsupported_content_type"),
    ]
    assert [line["cause"] for line in lines.requests if "cause" in line] == ["OSError"]  # what the decoder raised
    for sent in ("아반떼", "\\uc544", "REPORT", quote("아반떼"), SENT.encode().hex()):
        assert sent not in lines.text


def test_polled_routes_are_silent_unless_they_answer_an_error(
    api_client: AppClient, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert api_client.get(path).status_code == 200
    assert lines.requests == []
    monkeypatch.setattr(api_client.state.draining, "is_set", lambda: True)
    assert api_client.get("/readyz").status_code == 503
    assert [(line["route"], line["code"]) for line in lines.requests] == [("/readyz", "draining")]


def test_for_people_a_line_is_a_sentence_of_fixed_words(
    api_client: AppClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "carsearch")
    api_client.post("/search", files={"file": PHOTO[:600]}, headers={"X-Request-Id": "mine-2"})
    (record,) = caplog.records
    assert record.getMessage().startswith("mine-2 /search 422 image_undecodable (OSError) ")
    assert record.getMessage().endswith(" ms")


# When an answer ends its connection.


@pytest.mark.parametrize(
    ("headers", "closes"),
    [
        ({"Content-Length": "1000"}, False),
        ({"Content-Length": str(MAX_BODY_BYTES)}, False),
        ({"Transfer-Encoding": "chunked"}, True),
        ({"Content-Length": "1000", "Expect": "100-continue"}, True),
        ({}, False),
    ],
    ids=str,
)
def test_a_body_that_is_not_read_ends_the_connection_unless_its_end_is_known(
    api_client: AppClient, headers: dict[str, str], closes: bool
) -> None:
    refused = api_client.exchange("POST", "/nowhere", headers).answer()
    assert refused.status_code == 404
    assert (refused.headers.get("connection") == "close") is closes


@pytest.mark.parametrize(("length", "closes"), [(MAX_BODY_BYTES + 1, False), (32 << 20, False), ((32 << 20) + 1, True)])
def test_a_body_that_is_too_large_ends_the_connection_where_it_is_not_read_to_its_end(
    api_client: AppClient, length: int, closes: bool
) -> None:
    refused = api_client.exchange("POST", "/nowhere", {"Content-Length": str(length)}).answer()
    assert (refused.status_code, refused.headers.get("connection") == "close") == (413, closes)


def test_a_body_that_was_read_does_not(api_client: AppClient) -> None:
    body = form(PHOTO + bytes(1 << 20))
    upload = api_client.exchange("POST", "/search", {**FORM, "Content-Length": str(len(body))})
    upload.send(body)
    found = upload.answer()
    assert found.status_code == 200
    assert "connection" not in found.headers


def test_while_the_server_drains_every_answer_does(api_client: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client.state.draining, "is_set", lambda: True)
    found = api_client.post("/search", files={"file": PHOTO})
    assert (found.status_code, found.headers["connection"]) == (200, "close")


def test_a_request_that_a_stopping_server_cuts_off_is_answered_and_told(
    fake_index: IndexDirectory, lines: Lines
) -> None:
    with running_app(fake_index.root) as client:
        upload = client.exchange("POST", "/search", FORM)
        upload.send(form(PHOTO)[:100], more=True)
        eventually(lambda: upload.read_bytes > 0, "the upload has begun")
        upload.cut_off()
        stopped = upload.answer()
    assert_problem(stopped, "draining")
    assert [line["code"] for line in lines.requests if line["route"] == "/search"] == ["draining"]
