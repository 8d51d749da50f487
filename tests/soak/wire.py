"""Requests over bare connections, one at a time each, and how each of them ended; clients that never stop asking."""

import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from bench.load import END_OF_HEAD, AnswerMalformed, whole_answer
from tests.support.bodies import FORM, form

CHUNK_BYTES = 1 << 16
REFUSED_PAUSE_S = 0.01

Ending = Literal["whole", "cut", "none", "refused"]
"""A whole answer; one cut off in the middle; a connection that ended without a byte of an answer; no connection."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one request; `sent_at` (time.monotonic) is when all of it had left, None when it never had."""

    ending: Ending
    status: int = 0
    body: bytes = b""
    sent_at: float | None = None
    took_ms: float = 0


def upload(path: str, data: bytes, field: str = "file", head: str = "") -> bytes:
    """The bytes of a request that uploads one file; `head` are more lines of its head, each with its end."""
    body = form(data, field)
    lines = f"Host: localhost\r\nContent-Type: {FORM['Content-Type']}\r\nContent-Length: {len(body)}\r\n{head}"
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def fetch(path: str) -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Wire:
    """A connection to a loopback port that is kept as long as the server keeps it, and made anew afterwards."""

    def __init__(self, port: int, timeout_s: float = 60, read_pause_s: float = 0) -> None:
        """With `read_pause_s` answers are read slowly, and in small pieces."""
        self._port, self._timeout_s, self._read_pause_s = port, timeout_s, read_pause_s
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, request: bytes) -> Reply:
        """Sends a request and reads its answer."""
        started = time.perf_counter()
        try:
            connection = self._connected()
        except OSError:
            return Reply("refused")
        sent_at, status, received = None, None, bytearray()
        try:
            connection.sendall(request)
            sent_at = time.monotonic()
            status = self._receive(connection, received)
        except (OSError, AnswerMalformed):
            pass
        took_ms = (time.perf_counter() - started) * 1000
        if status is None:
            self.close()
            return Reply("cut" if received else "none", sent_at=sent_at, took_ms=took_ms)
        head, _, body = received.partition(END_OF_HEAD)
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return Reply("whole", status, bytes(body), sent_at, took_ms)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), self._timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _receive(self, connection: socket.socket, received: bytearray) -> int | None:
        """Status of the answer, which lies in `received` when it is whole; None when the connection ended before."""
        while (status := whole_answer(received)) is None:
            chunk = connection.recv(CHUNK_BYTES)
            if not chunk:
                return None
            received += chunk
            if self._read_pause_s:
                time.sleep(self._read_pause_s)
        return status


@dataclass(frozen=True, slots=True)
class Client:
    """Asks for its requests in turn; `keeps` its connection or takes a new one each time, and may read slowly."""

    requests: Sequence[bytes]
    keeps: bool = True
    read_pause_s: float = 0


class Clients:
    """Threads that each ask as soon as they were answered, or some time later, until they are told to stop."""

    def __init__(self, port: int, clients: Sequence[Client], on_reply: Callable[[bytes, Reply], bool]) -> None:
        """`on_reply` gets each request with its reply, in the client's thread; False ends that client."""
        self.pause_s = 0.0
        """The longest pause before a client asks again; each takes one at random."""
        self._port, self._clients, self._on_reply = port, clients, on_reply
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """All clients ask; at the end each has its last reply."""
        threads = [threading.Thread(target=self._ask, args=(turn, one)) for turn, one in enumerate(self._clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _ask(self, first: int, client: Client) -> None:
        chance = random.Random(first)
        wire = Wire(self._port, read_pause_s=client.read_pause_s)
        try:
            for turn in itertools.count(first):
                if self._stopping.is_set():
                    return
                request = client.requests[turn % len(client.requests)]
                reply = wire.ask(request)
                if not self._on_reply(request, reply):
                    return
                if not client.keeps:
                    wire.close()
                pause_s = chance.uniform(0, self.pause_s) if reply.ending != "refused" else REFUSED_PAUSE_S
                if pause_s:
                    self._stopping.wait(pause_s)
        finally:
            wire.close()
