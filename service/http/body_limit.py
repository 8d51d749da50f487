"""Limits of a body while it is received: its size, its deadline, its lowest rate; and that it is not compressed."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PayloadTooLarge, UnsupportedContentEncoding, UploadTimeout
from service.http.admission import declared_bytes
from service.http.context import RequestContext, Upload, media_type
from service.http.limits import Limits

IN_JSON = 1.02 * 4 / 3
"""How much larger a photo is in JSON: base64, and 2% for encoders that write each slash as two characters."""


class BodyLimit:
    """Middleware; raises UnsupportedContentEncoding, PayloadTooLarge (from the headers where they tell enough) and
    UploadTimeout.

    Nothing is buffered here. A photo has a deadline; an archive may go on as long as it keeps up the lowest rate.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, limits: Limits) -> None:
        self._app, self._max_body_bytes, self._limits = app, max_body_bytes, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context: RequestContext = scope["context"]
        upload = context.route.rules.upload
        if upload:
            _refuse_encoded(scope)
        kind = media_type(scope)
        if upload != "photo" and kind != "multipart/form-data":
            upload = None  # a batch and an archive are forms
        limit = self._limit_bytes(upload, json=kind == "application/json")
        _refuse_larger(declared_bytes(scope), limit)
        started = time.monotonic()

        async def receive_in_time() -> Message:
            if context.body_complete:  # what follows is the wait for a disconnect, which has no deadline
                return await receive()
            deadline_s = self._deadline_s(context.received_bytes, upload)
            try:
                async with asyncio.timeout(started + deadline_s - time.monotonic()):
                    message = await receive()
            except TimeoutError as problem:
                raise UploadTimeout("The upload took too long.") from problem
            context.received_bytes += len(message.get("body", b""))
            _refuse_larger(context.received_bytes, limit)
            context.body_complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)

    def _limit_bytes(self, upload: Upload | None, *, json: bool) -> int:
        match upload:
            case "archive":
                return self._limits.archive_bytes
            case "photos":
                return self._limits.batch_bytes
            case "photo" if json:
                return int(self._max_body_bytes * IN_JSON)
        return self._max_body_bytes

    def _deadline_s(self, received_bytes: int, upload: Upload | None) -> float:
        """How long an upload may have taken after what has come."""
        limits = self._limits
        keeping_up_s = received_bytes / limits.upload_bytes_per_s
        if upload == "archive":
            return limits.upload_deadline_s + keeping_up_s
        longest_s = limits.batch_deadline_s if upload == "photos" else limits.upload_deadline_s
        return min(longest_s, limits.upload_grace_s + keeping_up_s)


def _refuse_encoded(scope: Scope) -> None:
    """A compressed body could be any size when it is unpacked, and photos and archives are compressed already."""
    codings = b",".join(value for name, value in scope["headers"] if name == b"content-encoding")
    if any(coding.strip().lower() not in (b"", b"identity") for coding in codings.split(b",")):
        raise UnsupportedContentEncoding("Send the body as it is, without Content-Encoding.")


def _refuse_larger(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise PayloadTooLarge(f"The body is larger than {limit_bytes} bytes.")
