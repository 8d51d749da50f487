"""HTTP/1.1 as uvicorn speaks it with h11, with deadlines for slow clients.

h11 bounds the size of a head (`h11_max_incomplete_event_size`) and reads one request after the other. uvicorn waits as
long as it takes for a head to come, and for a client to read its answer.
"""

import asyncio
from typing import Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from service.http.limits import Limits


def limited_protocol(limits: Limits) -> type["LimitedHttpProtocol"]:
    """The protocol with these limits; uvicorn makes one instance a connection."""
    return type("LimitedHttpProtocol", (LimitedHttpProtocol,), {"limits": limits})


class LimitedHttpProtocol(H11Protocol):
    """Adds deadlines for heads and answers, and passes over offers to upgrade (RFC 9110, section 7.8)."""

    limits: ClassVar[Limits] = Limits()
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._writer = _Writer(transport, self.loop, self.limits.write_deadline_s)
        super().connection_made(cast(asyncio.Transport, self._writer))
        self._head_timer = self.loop.call_later(self.limits.head_deadline_s, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does not after a reset
        self._stop_head_timer()
        self._writer.expect_nothing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    def _watch_head(self) -> None:
        """Starts the deadline when a head has begun, or a body goes on behind its answer; a whole head stops it."""
        current: RequestResponseCycle | None = self.cycle  # None before the first request
        if current is not None and not current.response_complete:
            self._stop_head_timer()
        elif self._head_timer is None and (self.conn.trailing_data[0] or self.conn.their_state is not h11.IDLE):
            self._head_timer = self.loop.call_later(self.limits.head_deadline_s, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _should_upgrade(self) -> bool:
        return False

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()  # an answer has begun

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
