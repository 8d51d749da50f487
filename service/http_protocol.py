"""HTTP/1.1 on the wire: requests with a head of bounded size, answers in one write.

A header and its body leave together: whoever kills this process meets both or none of them.

uvicorn writes them one after the other. A proxy that has the header alone passes it on, and can no longer ask another
replica when the body never comes: with two writes one kill in thirty lost a search.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 32 << 10
"""Of a request line and its headers, for which the parser itself has no limit."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, over a transport that sends at the end of the event loop's turn."""

    _in_head = True
    _head_bytes = 0
    _completed = 0
    """Heads and bodies completed: a chunk in which nothing was is part of one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, _Gathering(transport, self.loop)))

    def data_received(self, data: bytes) -> None:
        completed = self._completed
        super().data_received(data)
        if self._in_head and self._completed == completed:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The request's headers are too large.")

    def on_headers_complete(self) -> None:
        self._complete(in_head=False)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._complete(in_head=True)
        super().on_message_complete()

    def _complete(self, in_head: bool) -> None:
        self._in_head, self._head_bytes = in_head, 0
        self._completed += 1


class _Gathering:
    """A transport whose writes of one turn go out as one; everything else is the transport's own."""

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
            data = b"".join(self._pending)
            self._pending.clear()
            self._transport.write(data)
