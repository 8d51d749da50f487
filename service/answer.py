"""Every answer on its way out: its headers, its place in the metrics, its line in the log."""

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from service.drain import Drain
from service.metrics import Metrics
from service.problems import PayloadTooLarge, UploadTimeout
from service.tracing import method_of, route_of

# After these the connection ends: what is still on its way will not be read, or uvicorn hangs up after a bug.
CUT_OFF = (PayloadTooLarge.code, UploadTimeout.code, "internal")
POLLED = ("/livez", "/readyz", "/metrics")
"""Asked for by machines every few seconds: no traces, and a log line only for an answer that is an error."""

log = logging.getLogger("carsearch")


class Answer:
    """The sending side of one request."""

    def __init__(self, scope: Scope, send: Send, metrics: Metrics, drain: Drain) -> None:
        self._scope, self._send, self._metrics, self._drain = scope, send, metrics, drain
        self._started = time.monotonic()

    async def send(self, message: Message) -> None:
        """Passes a message on; the first one of an answer is counted and gets its headers."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._scope["request_id"]
            headers["X-Content-Type-Options"] = "nosniff"
            if self._ends_connection():
                headers["Connection"] = "close"
            self._count(message["status"])
        await self._send(message)

    def _ends_connection(self) -> bool:
        unread = self._scope.get("closes_unread", False) and not self._scope.get("received_all", False)
        return unread or self._drain.begun or self._scope.get("problem_code") in CUT_OFF

    def _count(self, status: int) -> None:
        route, code = route_of(self._scope), self._scope.get("problem_code", "ok")
        took_s = time.monotonic() - self._started
        self._scope["answer_status"] = status
        self._metrics.answers.labels(route, str(status), code).inc()
        self._metrics.request_seconds.labels(route).observe(took_s)
        quiet = route in POLLED and code == "ok"
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "%s %s %d %s %.1f ms",
            self._scope["request_id"], route, status, code, took_s * 1000,
            extra={"fields": self._fields(route, status, code, took_s * 1000)},
        )  # fmt: skip

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
        if "stages_ms" in self._scope:
            fields["stages_ms"] = {stage: round(value, 3) for stage, value in self._scope["stages_ms"].items()}
        return fields
