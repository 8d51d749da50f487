"""HTTP/1.1 as uvicorn speaks it with httptools, with limits for what a slow or greedy client may take of a connection.

uvicorn waits for the head of a request, and for a client to read its answer, as long as they take.
"""

import asyncio
from typing import Any, Literal, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http.limits import Limits

Waiting = Literal["head", "next request"]
"""What a connection waits for: the rest of a head, or of a body that nobody reads; or any byte of another request."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """Adds deadlines, a limit of the head's size and one of pipelined requests, and ignores offers to upgrade.

    A connection on which nothing is being received or answered is closed after uvicorn's `timeout_keep_alive`, and one
    that has sent no request yet, or is in the middle of a head, after `Limits.head_deadline_s`.
    """

    def __init__(self, *arguments: Any, limits: Limits, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._limits = limits
        self._head_bytes: int | None = 0  # of an unfinished head; None within a body
        self._waiting: Waiting | None = None  # what the timer is for
        self._resuming = False  # whether the parser reads the head that `_ignore_upgrade` makes

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._writer = _Writer(transport, self.loop, self._limits.write_deadline_s)
        super().connection_made(cast(asyncio.Transport, self._writer))
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does not after a reset
        self._writer.expect_nothing()

    def data_received(self, data: bytes) -> None:
        try:
            while data:
                data = self._parse(data)
            if self._head_bytes is not None and self._head_bytes > self._limits.head_bytes:
                raise httptools.HttpParserError
        except httptools.HttpParserError:
            if not self.transport.is_closing():
                self.send_400_response("The request is no HTTP, or its headers are too large.")
        self._watch()

    def _watch(self) -> None:
        """Starts uvicorn's timer when the connection begins to wait for something, and stops it where it does not."""
        current: RequestResponseCycle | None = self.cycle  # None before the first request
        waiting: Waiting | None = "head"
        if current is not None and not current.response_complete:
            waiting = None
        elif current is not None and self._head_bytes == 0:
            waiting = "next request"
        if waiting == self._waiting:
            return  # a head that drips has the time of one that comes at once
        self._waiting = waiting
        self._unset_keepalive_if_required()
        if waiting is not None and not self.transport.is_closing():
            seconds = self._limits.head_deadline_s if waiting == "head" else self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def on_response_complete(self) -> None:
        super().on_response_complete()  # which starts the timer of the next request whatever has come of it
        self._unset_keepalive_if_required()
        self._waiting = None
        self._watch()

    def _parse(self, data: bytes) -> bytes:
        """Gives back what comes behind a head that offers to upgrade."""
        if self._head_bytes is not None:
            self._head_bytes += len(data)  # until `on_headers_complete` says that it was more than a head
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            return data[upgrade.args[0] :]
        return b""

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        if self._resuming:
            return
        if len(self.pipeline) >= self._limits.pipelined_requests:
            self.transport.abort()  # parsing what else has come would hold up all other clients
            raise ConnectionAbortedError
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():  # else the parser leaves the body to another protocol
            super().on_message_complete()
            self._head_bytes = 0

    def _ignore_upgrade(self) -> None:
        """Goes on behind a head that offers to upgrade, as Java's HttpClient does by default; there the parser ends.

        A new parser reads the body, behind a head that says how the body is framed (RFC 9110, section 7.8).
        """
        framing = (b"content-length", b"transfer-encoding")
        lines = [b"%s: %s" % header for header in self.headers if header[0] in framing]
        self.parser, self._resuming = httptools.HttpRequestParser(self), True
        try:
            self.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""]))
        finally:
            self._resuming = False

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._writer.expect_progress()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._writer.expect_nothing()


class _Writer:
    """A transport that sends what is written in one turn of the event loop in one piece, and in time.

    uvicorn writes the head of an answer, and then its body. A process that is killed between the two has sent a head: a
    proxy passes it on, and can no longer ask another server when the body does not come.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, deadline_s: float) -> None:
        self._transport, self._loop, self._deadline_s = transport, loop, deadline_s
        self._pending: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        self.expect_progress()

    def expect_progress(self) -> None:
        """Breaks the connection off if what is left to write is not written in time."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._deadline_s, self._transport.abort)

    def expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        if self._pending:
            self._transport.write(b"".join(self._pending))
            self._pending.clear()
