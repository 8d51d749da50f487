"""Intake of every request, before any parser: request id, size limit, upload deadline, and the count of the answer.

Pure ASGI: nothing is buffered, and a body that is too large or too slow is cut off while it is being received.
"""

import asyncio
import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.problems import PayloadTooLarge, UploadTimeout, problem_response
from service.settings import Settings

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# After these the connection ends: what is still on its way will not be read, or uvicorn hangs up after a bug.
CUT_OFF = (PayloadTooLarge.code, UploadTimeout.code, "internal")
log = logging.getLogger("carsearch")


class Guard:
    """Wraps the app; see the module."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        scope["request_id"] = offered if REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        answer = _Answer(scope, send, self.metrics)
        archive = scope["path"] == "/evaluate" and headers.get("content-type", "").lower().startswith("multipart/")
        limit = self.settings.max_archive_bytes if archive else self.settings.max_body_bytes
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            scope["problem_code"] = PayloadTooLarge.code
            refused = problem_response(scope["request_id"], PayloadTooLarge.code, _too_large(limit))
            await refused(scope, receive, answer.send)
            return
        await self.app(scope, self._counted(receive, limit, archive), answer.send)

    def _deadline(self, received: int, archive: bool) -> float:
        """Seconds that an upload may have taken after so many bytes: a fixed time, for archives plus a minimum rate."""
        allowance = received / self.settings.min_upload_bytes_per_s if archive else 0
        return self.settings.body_deadline_s + allowance

    def _counted(self, receive: Receive, limit: int, archive: bool) -> Receive:
        started = time.monotonic()
        received = 0
        complete = False

        async def counted() -> Message:
            nonlocal received, complete
            if complete:  # what follows is the wait for a disconnect, which has no deadline
                return await receive()
            try:
                async with asyncio.timeout(started + self._deadline(received, archive) - time.monotonic()):
                    message = await receive()
            except TimeoutError as problem:
                raise UploadTimeout("The upload took too long.") from problem
            received += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if received > limit:
                raise PayloadTooLarge(_too_large(limit))
            return message

        return counted


class _Answer:
    """Adds headers to the answer, counts it and writes one log line."""

    def __init__(self, scope: Scope, send: Send, metrics: Metrics) -> None:
        self._scope, self._send, self._metrics = scope, send, metrics
        self._started = time.monotonic()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._scope["request_id"]
            headers["X-Content-Type-Options"] = "nosniff"
            if self._scope.get("problem_code") in CUT_OFF:
                headers["Connection"] = "close"
            self._count(message["status"])
        await self._send(message)

    def _count(self, status: int) -> None:
        route: Any = self._scope.get("route")
        path = getattr(route, "path", "none")  # the template, so that made-up addresses make no new series
        code = self._scope.get("problem_code", "ok")
        self._metrics.answers.labels(path, str(status), code).inc()
        milliseconds = (time.monotonic() - self._started) * 1000
        log.info("%s %s %d %s %.1f ms", self._scope["request_id"], path, status, code, milliseconds)


def _too_large(limit: int) -> str:
    return f"The body is larger than {limit} bytes."
