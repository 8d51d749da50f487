"""HTTP/1.1 as uvicorn speaks it, with limits for what a slow or greedy client may take of a connection.

uvicorn waits for the head of a request, and for a client to read its answer, as long as they take.
"""

import asyncio
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http.limits import Limits


def limited_protocol(limits: Limits) -> type["LimitedHttpProtocol"]:
    """The protocol with these limits; uvicorn makes one instance a connection."""
    return type("LimitedHttpProtocol", (LimitedHttpProtocol,), {"limits": limits})


class TooManyPipelined(Exception):
    """Ends the parsing of a connection."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """Adds deadlines, a limit of the head's size and one of pipelined requests, and ignores offers to upgrade."""

    limits: ClassVar[Limits] = Limits()
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _progressed = False
    """Whether a head or a body was completed by the chunk that is being parsed."""
    _resuming = False
    """Whether the parser is reading the head that `_ignore_upgrade` made."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, _OneWrite(transport, self.loop)))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does not after a reset

    # The head of a request.
    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._progressed = False
        try:
            rest = data
            while rest:
                rest = self._parse(rest)
        except httptools.HttpParserError:
            if not self.transport.is_closing():
                self.send_400_response("Invalid HTTP request received.")
        if self._in_head and not self._progressed:
            self._head_bytes += len(data)
            self._await_head()
            if self._head_bytes > self.limits.head_bytes and not self.transport.is_closing():
                self.send_400_response("The request's headers are too large.")

    def _parse(self, data: bytes) -> bytes:
        """Gives back what comes behind a head that offers to upgrade."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            return data[upgrade.args[0] :]
        return b""

    def on_headers_complete(self) -> None:
        if self._resuming:
            return
        if len(self.pipeline) >= self.limits.pipelined_requests:
            self.transport.abort()
            raise TooManyPipelined  # parsing what else has come would hold up all other clients
        self._in_head, self._head_bytes, self._progressed = False, 0, True
        self._stop_head_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the parser leaves the body to another protocol
        super().on_message_complete()
        self._in_head, self._progressed = True, True
        self._stop_head_timer()
        if self.cycle.response_complete:  # the client was answered before all of its body had come
            self._await_head()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_deadline_s, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        before: RequestResponseCycle | None = self.cycle  # None before the first request
        if before is not None and not before.response_complete:
            self._await_head()  # the request before is still being answered
        else:
            self._close()

    # "Upgrade: h2c", which Java's HttpClient sends by default, may be ignored (RFC 9110, section 7.8). The parser does
    # not: it ends at the head. A new parser goes on with the body, behind a head that says how the body is framed.
    def _ignore_upgrade(self) -> None:
        framing = {b"content-length", b"transfer-encoding"}
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] in framing]
        self.parser = httptools.HttpRequestParser(self)
        self._resuming = True
        try:
            self.parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *lines]))
            self.parser.feed_data(b"\r\n")
        finally:
            self._resuming = False

    def on_message_begin(self) -> None:
        if not self._resuming:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._resuming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._resuming:
            super().on_header(name, value)

    # An answer.
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_write()
        elif not self._in_head:  # the rest of a body that nobody reads any more
            self._await_head()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._await_write()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def _close(self) -> None:
        self.transport.close()
        self._await_write()

    def _await_write(self) -> None:
        """Breaks the connection off if what is left to write is not written in time."""
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write_deadline_s, self.transport.abort)


class _OneWrite:
    """A transport that sends what is written in one turn of the event loop in one piece.

    uvicorn writes the head of an answer, and then its body. A process that is killed between the two has sent a head: a
    proxy passes it on, and can no longer ask another server when the body does not come.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pending: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pending:
            self._transport.write(b"".join(self._pending))
            self._pending.clear()
