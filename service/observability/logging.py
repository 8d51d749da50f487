"""The log of a server process, on standard error: lines for people, or one JSON object a line for machines.

Every request is one line, with its id and never with anything that was sent. A record may carry `fields`, which JSON
keeps apart, and asks for; what is logged while a request is handled carries the request's id.
"""

import asyncio
import json
import logging
import sys
import time
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from service.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(message)s"
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being handled, set by the guard."""


def start_log(settings: Settings) -> None:
    """Sets the process's log up as the settings say."""
    # What no line tells costs time in every one of them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = GatheringHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter(TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """Lines for people. The time of day is made once a second: under load it was the dearest part of a line."""

    _second = 0
    _told = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802  # logging asks so
        second = int(record.created)
        if second != self._second:
            self._told = time.strftime(self.default_time_format, self.converter(second))
            self._second = second
        return f"{self._told},{int(record.msecs):03d}"


class GatheringHandler(logging.Handler):
    """Writes the lines about requests of one turn of the event loop to standard error together.

    Every write lets another thread have the interpreter, and then the loop waits for it. Everything else is written at
    once: a signal may end the process before the next turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + "\n")
            if not hasattr(record, "fields") or (loop := asyncio._get_running_loop()) is None:
                self.flush()
            elif len(self._lines) == 1:
                loop.call_soon(self.flush)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        with self.lock or nullcontext():
            lines, self._lines = self._lines, []
            if lines:
                sys.stderr.write("".join(lines))
                sys.stderr.flush()


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time in UTC, level, logger, message, request id, fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            line["message"] = record.getMessage()
        else:
            line |= {"message": "request", **fields()}
        if (identity := request_id.get()) is not None:
            line.setdefault("request_id", identity)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)  # ASCII: no control character reaches a terminal
