"""Clients that are slow on purpose: uploads that barely keep up the lowest rate, and heads that never end."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from service.http.limits import Limits
from tests.support.bodies import form
from tests.support.connections import head

SOURCE = "127.0.0.9"
TURN_S = 0.5
SURPLUS = 1.1
UPLOAD_BYTES = 1 << 20
HEADS = 50
SLACK_S = 5


@dataclass
class Uploads:
    """What slow uploads have sent so far."""

    sent_bytes: int = 0


def _opened(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 10, (SOURCE, 0))
    connection.setblocking(False)
    return connection


@contextmanager
def slow_uploads(port: int, count: int) -> Iterator[Uploads]:
    """So many uploads at the lowest rate that is allowed, from one address, until the block ends."""
    body = form(bytes(UPLOAD_BYTES))
    start = head(f"Content-Length: {len(body)}")
    part = bytes(int(Limits().upload_bytes_per_s * TURN_S * SURPLUS))
    told, stop = Uploads(), threading.Event()

    def begun() -> socket.socket:
        connection = _opened(port)
        connection.sendall(start)
        return connection

    def send() -> None:
        connections = [begun() for _ in range(count)]
        while not stop.wait(TURN_S):
            for number, connection in enumerate(connections):
                try:
                    told.sent_bytes += connection.send(part)
                except BlockingIOError:
                    continue
                except OSError:  # the deadline of an upload, or a refusal
                    connection.close()
                    connections[number] = begun()
        for connection in connections:
            connection.close()

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield told
    finally:
        stop.set()
        sending.join()


def slow_heads(port: int) -> tuple[int, int]:
    """Opens connections that send a byte of a head a second; how many are cut off in time, and of how many."""
    connections = [_opened(port) for _ in range(HEADS)]
    for connection in connections:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
    until, cut_off = time.monotonic() + Limits().head_deadline_s + SLACK_S, 0
    while connections and time.monotonic() < until:
        time.sleep(1)
        for connection in list(connections):
            try:
                connection.send(b"x")
                ended = connection.recv(1) == b""
            except BlockingIOError:
                continue
            except OSError:
                ended = True
            if ended:
                cut_off += 1
                connection.close()
                connections.remove(connection)
    for connection in connections:
        with suppress(OSError):
            connection.close()
    return cut_off, HEADS
