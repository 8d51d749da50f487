"""A tiny HTTP server in a thread: constant answers, one at a time, as slow or as broken as a test needs."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from bench.load import whole_answer

EARLY_S = 0.5
"""How long a client has to see an early answer before the rest of its upload is read."""

Answer = Callable[[int], bytes | None]
"""Told the number of the request, from 0; gives the bytes to send, or None to hang up; it does after a part, too."""


def answer(status: int = 200, body: bytes = b"{}", more: str = "") -> bytes:
    """A whole answer; `more` headers end with their line ends."""
    return f"HTTP/1.1 {status} Any\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _head(stream: BinaryIO) -> bytes:
    """The lines of a request before its body; empty at the end of the connection."""
    head = b""
    while line := stream.readline():
        if line == b"\r\n":
            break
        head += line
    return head


class TinyServer:
    """Answers requests on kept connections; all connections share one turn, as one busy worker would.

    `early` answers come before the body has been read; `rests` says how much of each came then.
    """

    def __init__(self, reply: Answer, early: bool = False) -> None:
        self._reply, self._early = reply, early
        self._turn = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[bytes] = []
        self.rests: list[int] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that goes in the middle of something is its own affair.
        with connection, connection.makefile("rb") as stream, suppress(ConnectionError):
            while head := _head(stream):
                lengths = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
                length = int(lengths[0].split(b":")[1]) if lengths else 0
                body = b"" if self._early else stream.read(length)
                with self._turn:
                    self.requests.append(head + b"\r\n" + body)
                    reply = self._reply(len(self.requests) - 1)
                if reply is None:
                    return
                connection.sendall(reply)
                if whole_answer(reply) is None:
                    return
                if self._early:
                    time.sleep(EARLY_S)
                    self.rests.append(len(stream.read(length)))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=10)


@contextmanager
def tiny_server(reply: Answer, early: bool = False) -> Iterator[TinyServer]:
    """Runs a server until the block ends."""
    server = TinyServer(reply, early)
    try:
        yield server
    finally:
        server.close()


def after(seconds: float, reply: bytes) -> Answer:
    """Every answer takes some time."""

    def wait(_number: int) -> bytes:
        time.sleep(seconds)
        return reply

    return wait
