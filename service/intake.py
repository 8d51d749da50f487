"""A body while it is received: counted, timed, and paid for from the memory that all uploads share."""

import asyncio
import time

from starlette.types import Message, Receive, Scope

from service.problems import Overloaded, PayloadTooLarge, UploadTimeout
from service.settings import Settings
from service.shares import Shares

GRACE_S = 5
"""After so long an upload must have kept up with the lowest rate: connections begin slowly."""


class Intake:
    """The receiving side of one request; nothing is buffered here, and `close` gives back what was taken."""

    def __init__(
        self, scope: Scope, receive: Receive, settings: Settings, client: str, uploads: Shares, *, archive: bool
    ) -> None:
        self._scope, self._receive, self._settings = scope, receive, settings
        self._client, self._uploads, self._archive = client, uploads, archive
        self._limit = body_limit(settings, archive=archive)
        self._started = time.monotonic()
        self._received = self._taken = 0
        self._complete = False

    async def receive(self) -> Message:
        """The next part of the body; raises UploadTimeout, PayloadTooLarge, or Overloaded when memory is used up."""
        if self._complete:  # what follows is the wait for a disconnect, which has no deadline
            return await self._receive()
        try:
            async with asyncio.timeout(self._started + self._deadline_s() - time.monotonic()):
                message = await self._receive()
        except TimeoutError as problem:
            raise UploadTimeout("The upload took too long.") from problem
        part = len(message.get("body", b""))
        self._received += part
        self._scope["received_bytes"] = self._received
        if self._received > self._limit:
            raise PayloadTooLarge(too_large(self._limit))
        if not self._archive:  # archives go to disk, one at a time
            if part and not self._uploads.room(self._client, part):
                raise Overloaded("The server is receiving as much as it can hold; try again in a moment.")
            self._uploads.take(self._client, part)
            self._taken += part
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        self._scope["received_all"] = self._complete
        return message

    def _deadline_s(self) -> float:
        """How long the upload may have taken after what has come: archives may go on while they keep up the rate."""
        keeping_up_s = self._received / self._settings.min_upload_bytes_per_s
        if self._archive:
            return self._settings.body_deadline_s + keeping_up_s
        return min(self._settings.body_deadline_s, GRACE_S + keeping_up_s)

    def close(self) -> None:
        self._uploads.give_back(self._client, self._taken)


def body_limit(settings: Settings, *, archive: bool) -> int:
    """The largest body, in bytes."""
    return settings.max_archive_bytes if archive else settings.max_body_bytes


def too_large(limit: int) -> str:
    return f"The body is larger than {limit} bytes."
