"""Intake of every request, before any parser: request id, size limit, upload deadline, and the count of the answer.

Pure ASGI: nothing is buffered, and a body that is too large or too slow is cut off while it is being received.
"""

import asyncio
import random
import re
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.answer import POLLED, Answer
from service.drain import Drain
from service.logs import request_id
from service.metrics import Metrics
from service.problems import PayloadTooLarge, UploadTimeout, problem_response
from service.settings import Settings
from service.tracing import Tracing

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Guard:
    """Wraps the app; see the module."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, drain: Drain, tracing: Tracing) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.drain = drain
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        scope["request_id"] = offered if REQUEST_ID.fullmatch(offered) else _new_id()
        request_id.set(scope["request_id"])  # a request has a task of its own, and with it the variable
        answer = Answer(scope, send, self.metrics, self.drain)
        if scope["path"] in POLLED:
            await self._admit(scope, headers, receive, answer)
            return
        with self.tracing.request(scope, headers):
            await self._admit(scope, headers, receive, answer)

    async def _admit(self, scope: Scope, headers: Headers, receive: Receive, answer: Answer) -> None:
        archive = scope["path"] == "/evaluate" and headers.get("content-type", "").lower().startswith("multipart/")
        limit = self.settings.max_archive_bytes if archive else self.settings.max_body_bytes
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            scope["problem_code"] = PayloadTooLarge.code
            refused = problem_response(scope["request_id"], PayloadTooLarge.code, _too_large(limit))
            await refused(scope, receive, answer.send)
            return
        await self.app(scope, self._counted(scope, receive, limit, archive), answer.send)

    def _deadline(self, received: int, archive: bool) -> float:
        """Seconds that an upload may have taken after so many bytes: a fixed time, for archives plus a minimum rate."""
        allowance = received / self.settings.min_upload_bytes_per_s if archive else 0
        return self.settings.body_deadline_s + allowance

    def _counted(self, scope: Scope, receive: Receive, limit: int, archive: bool) -> Receive:
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
            scope["received_bytes"] = received
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if received > limit:
                raise PayloadTooLarge(_too_large(limit))
            return message

        return counted


def _new_id() -> str:
    # No secret; and asking the system for random bytes would hand the interpreter to another thread meanwhile.
    return f"{random.getrandbits(128):032x}"


def _too_large(limit: int) -> str:
    return f"The body is larger than {limit} bytes."
