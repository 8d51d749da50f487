"""Every answer on its way out: its headers, its place in the metrics, its line in the log."""

import logging
import time
from collections.abc import Iterable
from functools import partial

from starlette.types import Message, Scope, Send

from service.http.drain import Drain
from service.http.errors import PayloadTooLarge, UploadTimeout
from service.observability.metrics import Metrics
from service.observability.tracing import method_of, route_of

# After these the connection ends: what is still on its way will not be read, or uvicorn hangs up after a bug.
CUT_OFF = (PayloadTooLarge.code, UploadTimeout.code, "internal")
POLLED = ("/livez", "/readyz", "/metrics")
"""Asked for by machines every few seconds: no traces, and a log line only for an answer that is an error."""

Header = tuple[bytes, bytes]
NOSNIFF, CLOSE = (b"x-content-type-options", b"nosniff"), (b"connection", b"close")
log = logging.getLogger("carsearch")


class Answer:
    """The sending side of one request."""

    def __init__(self, scope: Scope, metrics: Metrics, drain: Drain, send: Send | None = None) -> None:
        """Without `send` there is only a beginning."""
        self._scope, self._send, self._metrics, self._drain = scope, send, metrics, drain
        self._started = time.monotonic()

    async def send(self, message: Message) -> None:
        """Passes a message on; the first one of an answer is counted and gets its headers."""
        if message["type"] == "http.response.start":
            message = {**message, "headers": self.begin(message["status"], message.get("headers", ()))}
        assert self._send is not None  # noqa: S101  # whoever sends has given it
        await self._send(message)

    def begin(self, status: int, headers: Iterable[Header]) -> list[Header]:
        """Counts an answer and tells of it; its headers with those that every answer has."""
        whole = [*headers, (b"x-request-id", self._scope["request_id"].encode()), NOSNIFF]
        if self._ends_connection():
            whole.append(CLOSE)
        self._count(status)
        return whole

    def _ends_connection(self) -> bool:
        unread = self._scope.get("closes_unread", False) and not self._scope.get("received_all", False)
        return unread or self._drain.begun or self._scope.get("problem_code") in CUT_OFF

    def _count(self, status: int) -> None:
        route, code = route_of(self._scope), self._scope.get("problem_code", "ok")
        took_s = time.monotonic() - self._started
        self._scope["answer_status"] = status
        self._metrics.answers_of(route, status, code).inc()
        self._metrics.request_seconds_of(route).observe(took_s)
        level = logging.DEBUG if route in POLLED and code == "ok" else logging.INFO
        if not log.isEnabledFor(level):
            return
        cause = self._scope.get("problem_cause")
        told = self._scope["request_id"], route, status, f"{code} ({cause})" if cause else code, took_s * 1000
        # Made here and not by the logger, which would look for the line of code that every answer comes from.
        record = logging.LogRecord(log.name, level, "", 0, "%s %s %d %s %.1f ms", told, None)
        vars(record)["fields"] = partial(self._fields, route, status, code, took_s * 1000)
        log.handle(record)

    def _fields(self, route: str, status: int, code: str, took_ms: float) -> dict[str, object]:
        """What a line of JSON tells: numbers and words of ours, nothing of what was sent."""
        fields: dict[str, object] = {
            "request_id": self._scope["request_id"],
            "method": method_of(self._scope),
            "route": route,
            "status": status,
            "code": code,
            "took_ms": round(took_ms, 2),
        }
        for name in ("received_bytes", "index", "trace_id"):
            if name in self._scope:
                fields[name] = self._scope[name]
        if "problem_cause" in self._scope:
            fields["cause"] = self._scope["problem_cause"]
        if "stages_ms" in self._scope:
            fields["stages_ms"] = {stage: round(value, 3) for stage, value in self._scope["stages_ms"].items()}
        return fields
