"""A body while it is received: counted, timed, and paid for from the memory that all uploads share.

A search whose length is announced has the memory for it from the start: taken as it comes, memory would run out in the
middle of many, all received to be thrown away. An announcement alone keeps it for no longer than a second.
"""

import asyncio
import time

from starlette.types import Message, Receive, Scope

from service.http.errors import Overloaded, PayloadTooLarge, UploadTimeout
from service.http.shares import Shares
from service.http.turns import Turns
from service.settings import Settings

RECEIVING = "The server is receiving as much as it can hold; try again in a moment."

HELD_S = 1.0
"""How long memory is kept for what was announced and has not come."""

GRACE_S = 5
"""After so long an upload must have kept up with the lowest rate: connections begin slowly."""


class Intake:
    """The receiving side of one request; nothing is buffered here, and `close` gives back what was taken.

    So many bytes of `uploads` as are `held` have been taken for it already.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        settings: Settings,
        uploads: Shares,
        turns: Turns,
        held: int,
        *,
        archive: bool,
    ) -> None:
        self._scope, self._receive, self._settings, self._turns = scope, receive, settings, turns
        self._client, self._uploads, self._archive = scope["asker"], uploads, archive
        self._limit = body_limit(settings, archive=archive)
        self._started = time.monotonic()
        self._received, self._taken = 0, held
        self._complete = self._waits = False
        self._promise_timer = asyncio.get_running_loop().call_later(HELD_S, self._let_go) if held else None

    async def receive(self) -> Message:
        """The next part of the body; raises UploadTimeout, PayloadTooLarge, or Overloaded when memory is used up."""
        if self._complete:  # what follows is the wait for a disconnect, which has no deadline
            return await self._receive()
        try:
            async with asyncio.timeout(self._started + self._deadline_s() - time.monotonic()):
                if self._received:  # the first part has come with the headers
                    await self._turn()
                message = await self._receive()
        except TimeoutError as problem:
            raise UploadTimeout("The upload took too long.") from problem
        part = len(message.get("body", b""))
        self._received += part
        self._scope["received_bytes"] = self._received
        if self._received > self._limit:
            raise PayloadTooLarge(too_large(self._limit))
        if not self._archive:  # archives go to disk, one at a time
            self._pay(self._received - self._taken)
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        self._scope["received_all"] = self._complete
        return message

    async def _turn(self) -> None:
        self._waits = True
        try:
            await self._turns.wait(self._started)
        finally:
            self._waits = False

    def _pay(self, more: int) -> None:
        if more <= 0:
            return
        if not self._uploads.room(self._client, more):
            raise Overloaded(RECEIVING)
        self._uploads.take(self._client, more)
        self._taken += more

    def _let_go(self) -> None:
        """Gives back what was taken for more than has come; unless it is the others that keep it from being read."""
        if self._waits:
            self._promise_timer = asyncio.get_running_loop().call_later(HELD_S, self._let_go)
            return
        surplus = max(0, self._taken - self._received)
        self._uploads.give_back(self._client, surplus)
        self._taken -= surplus

    def _deadline_s(self) -> float:
        """How long the upload may have taken after what has come: archives may go on while they keep up the rate."""
        keeping_up_s = self._received / self._settings.min_upload_bytes_per_s
        if self._archive:
            return self._settings.body_deadline_s + keeping_up_s
        return min(self._settings.body_deadline_s, GRACE_S + keeping_up_s)

    def close(self) -> None:
        if self._promise_timer is not None:
            self._promise_timer.cancel()
        self._uploads.give_back(self._client, self._taken)


def body_limit(settings: Settings, *, archive: bool) -> int:
    """The largest body, in bytes."""
    return settings.max_archive_bytes if archive else settings.max_body_bytes


def too_large(limit: int) -> str:
    return f"The body is larger than {limit} bytes."
