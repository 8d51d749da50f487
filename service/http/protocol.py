"""HTTP/1.1 on the wire: what a slow or greedy client may take of a connection, and answers in one write.

A header and its body leave together: whoever kills this process meets both or none of them. uvicorn writes them one
after the other. A proxy that has the header alone passes it on, and can no longer ask another replica when the body
never comes: with two writes one kill in thirty lost a search.

uvicorn also waits for the head of a request, and for a client to read its answer, as long as they take.
"""

import asyncio
import os
import select
import socket
import time
from contextlib import suppress
from typing import Any, ClassVar, cast

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.http.access_log import CLOSE
from service.settings import Settings

MAX_HEAD_BYTES = 32 << 10
"""Of a request line and its headers, for which the parser itself has no limit."""

LOOK_S = 0.05
"""How long a connection that is to be closed for its silence is listened to once more when something has come of late:
the event loop runs its timers first, and only then reads what came while it was busy or this process halted."""

MAX_PIPELINED = 64
"""Requests of one connection that may wait for the answers before theirs. uvicorn stops reading when one waits, but has
taken whatever came by then, and reads on after each answer: who asks and asks would fill the memory."""

PAUSE_S = 0.5
"""So long nothing is read after an answer that ends the connection: a client that reads while it sends, as proxies,
browsers and curl do, stops sending and hangs up."""

LINGER_S = 2.0
LINGER_BYTES = 10 << 20
"""How long then, and how much of a body that nobody wants, is read: closed with unread data in it, a connection is
reset, and a client that sent all the time may lose the answer that says why."""

WASTE_BYTES, WASTE_BYTES_PER_S = 16 << 20, 32 << 20
"""What all of these together may take of the loop's time, at once and for long."""


def bounded_protocol(settings: Settings) -> type["BoundedHttpProtocol"]:
    """The protocol with the deadlines of the settings; uvicorn makes one instance a connection."""
    own = {"head_deadline_s": settings.head_deadline_s, "write_deadline_s": settings.write_deadline_s, "waste": Waste()}
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), own)


class Waste:
    """What may be read to be thrown away, in all: a token bucket."""

    def __init__(self) -> None:
        self._left, self._filled = float(WASTE_BYTES), time.monotonic()

    def takes(self, amount: int) -> bool:
        """Whether there was something left for that, which is used up then."""
        now = time.monotonic()
        self._left = min(WASTE_BYTES, self._left + (now - self._filled) * WASTE_BYTES_PER_S)
        self._filled = now
        if self._left <= 0:
            return False
        self._left -= amount
        return True


class TooManyPipelined(Exception):
    """Ends the parsing of a connection."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, over a transport that sends at the end of the event loop's turn."""

    head_deadline_s: ClassVar[float] = 10
    write_deadline_s: ClassVar[float] = 30
    waste: ClassVar[Waste] = Waste()
    _in_head = True
    _head_bytes = 0
    _completed = 0
    """Heads and bodies completed: a chunk in which nothing was is part of one."""
    _chunk_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _lingered_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, _Gathering(transport, self)))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._write_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does not after a reset
        # Each of these leads back here. A connection that is left to the garbage collector costs all others time: where
        # hundreds a second are refused and end, it halted the process for a tenth of a second now and then.
        self._head_timer = self._write_timer = self._linger_timer = None
        self.cycle = None  # type: ignore[assignment]  # as uvicorn does before the first request
        cast(_Gathering, self.transport).let_go()

    def data_received(self, data: bytes) -> None:
        if self._linger_timer is not None:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES or not self.waste.takes(len(data)):
                self.transport.close()
            return
        completed, self._chunk_bytes = self._completed, len(data)
        super().data_received(data)
        if self._in_head and self._completed == completed:
            self._head_bytes += len(data)
            self._await_head()
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The request's headers are too large.")

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
            raise TooManyPipelined  # parsing what else has come would hold up all others
        self._complete(in_head=False)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._complete(in_head=True)
        super().on_message_complete()
        if self.cycle.response_complete:  # uvicorn waits for the next head before it has read the rest of this body
            self._await_head()

    def _complete(self, in_head: bool) -> None:
        self._in_head, self._head_bytes = in_head, 0
        self._completed += 1
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Asks the guard first; not where a proxy is believed, for then uvicorn's middleware stands before it."""
        if self.transport.is_closing():
            return  # a request behind one that was refused and ended the connection
        refused: Response | None = app.refuse(cycle.scope, self._chunk_bytes) if hasattr(app, "refuse") else None
        if refused is None:
            super()._start_asgi_task(cycle, app)
            return
        cycle.response_started = cycle.response_complete = True
        ends = not cycle.keep_alive or CLOSE in refused.raw_headers
        headers = [*self.server_state.default_headers, *refused.raw_headers]
        if ends and CLOSE not in headers:
            headers.append(CLOSE)
        lines = [b"%s: %s\r\n" % header for header in headers]
        whole = b"".join([STATUS_LINE[refused.status_code], *lines, b"\r\n", refused.body])
        cast(_Gathering, self.transport).write_now(whole)
        if ends:
            self.transport.close()
        cycle.on_response()

    def send_400_response(self, msg: str) -> None:
        """Nothing where the connection is at its end: uvicorn comes here from whatever ends the parsing."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._in_head and not self.transport.is_closing():  # the rest of a body that nobody reads any more
            self._await_head()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_deadline_s, self._head_is_late)

    def timeout_keep_alive_handler(self) -> None:
        if self._has_come():
            self.timeout_keep_alive_task = self.loop.call_later(LOOK_S, self.timeout_keep_alive_handler)
        else:
            self._hang_up()
            super().timeout_keep_alive_handler()

    def _head_is_late(self) -> None:
        self._head_timer = self.loop.call_later(LOOK_S, self._head_is_too_late)

    def _head_is_too_late(self) -> None:
        self._head_timer = None
        before: RequestResponseCycle | None = self.cycle
        if before is not None and not before.response_complete:
            self._await_head()  # the request before is still being answered
        elif self._head_bytes == 0 and self._has_come():
            self._head_is_late()
        else:
            self._hang_up()
            self.transport.close()

    def _has_come(self) -> bool:
        """Whether there is something to be read: closed now, the connection would lose a request."""
        looking = select.poll()
        looking.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(looking.poll(0))

    def _hang_up(self) -> None:
        """Lets the client know at once: a transport closes in a later turn, and what is sent until then is lost."""
        if self.transport.get_write_buffer_size():
            return
        with suppress(OSError), socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as same:
            same.shutdown(socket.SHUT_WR)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self.await_write()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def await_write(self) -> None:
        """Breaks the connection off if what is to be written is not written in time."""
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_deadline_s, self.transport.abort)

    def linger(self) -> bool:
        """Whether to wait for a while, and then to read, before the connection is closed."""
        if self._in_head or self._linger_timer is not None:
            return False
        self.transport.pause_reading()
        self._linger_timer = self.loop.call_later(PAUSE_S, self._read_on)
        return True

    def _read_on(self) -> None:
        self._linger_timer = self.loop.call_later(LINGER_S, self.transport.close)
        self.transport.resume_reading()


class _Gathering:
    """A transport whose writes of one turn go out as one; everything else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedHttpProtocol) -> None:
        self._transport = transport
        self._protocol: BoundedHttpProtocol | None = protocol
        self._pending: list[bytes] = []
        self._lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def let_go(self) -> None:
        """The connection has ended; what is written after this goes nowhere."""
        self._protocol = None

    def write(self, data: bytes) -> None:
        if self._protocol is None:
            return
        if not self._pending:
            self._protocol.loop.call_soon(self._flush)
        self._pending.append(data)

    def write_now(self, data: bytes) -> None:
        """For an answer that is whole: waiting for the end of the turn would cost another turn."""
        self._pending.append(data)
        self._flush()

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        if self._protocol is None or self._transport.is_closing():
            return
        if self._protocol.linger():
            self._lingers = True
            self._transport.write_eof()
            return
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._protocol.await_write()

    def _flush(self) -> None:
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            self._transport.write(data)
