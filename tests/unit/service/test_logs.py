"""The log of a server: lines for people, or one JSON object a line."""

import json
import logging
from collections.abc import Iterator

import pytest

from service.observability.logging import JsonFormatter, request_id, start_log
from service.settings import load_settings


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


def test_fields_stand_beside_each_other_in_json() -> None:
    record = logging.makeLogRecord({"msg": "for people", "levelname": "INFO", "fields": {"status": 200, "code": "ok"}})
    told = json.loads(JsonFormatter().format(record))
    assert (told["message"], told["status"], told["code"], told["level"]) == ("request", 200, "ok", "info")
    assert "request_id" not in told


@pytest.fixture
def root_level() -> Iterator[None]:
    """The level of the root logger is what it was, afterwards."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)


@pytest.mark.usefixtures("root_level")
@pytest.mark.parametrize(("log_format", "is_json"), [("text", False), ("json", True)])
def test_lines_are_for_people_unless_json_is_asked_for(
    log_format: str, is_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_settings().log_format == "text"
    monkeypatch.setattr(logging.root, "handlers", [])
    start_log(load_settings(log_format=log_format, log_level="warning"))
    logging.getLogger("carsearch").warning("told")
    logging.getLogger("carsearch").info("not told")
    (line,) = capsys.readouterr().err.splitlines()
    if is_json:
        assert json.loads(line)["message"] == "told"
    else:
        assert line.endswith(" WARNING told")
