"""The log of a server process, on standard error: lines for people, or one JSON object a line for machines.

A record may carry `fields`, which JSON keeps apart; what is logged while a request is handled carries the request's id.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from service.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(message)s"
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being handled."""


def start_log(settings: Settings) -> None:
    """Sets the process's log up as the settings say."""
    # What no line tells costs time in every one of them (the standard library's HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time in UTC, level, logger, message, request id, fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields: dict[str, object] | None = getattr(record, "fields", None)
        line |= {"message": record.getMessage()} if fields is None else {"message": "request", **fields}
        if (identity := request_id.get()) is not None:
            line.setdefault("request_id", identity)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)  # ASCII: no control character reaches a terminal
