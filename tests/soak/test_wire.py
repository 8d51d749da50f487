"""The clients of the long runs tell a whole answer from one that was cut off, lost, refused, or another version's."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench.serving import free_port
from tests.soak.material import Known
from tests.soak.wire import Reply, Wire, fetch

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
RESET = struct.pack("ii", 1, 0)


def send(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where one request is answered, and the connection then ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("answer", "ending", "body"),
    [
        (send(WHOLE), "whole", b"hello"),
        (send(WHOLE[:-1]), "cut", b""),
        (send(WHOLE[:10]), "cut", b""),
        (send(b""), "none", b""),
        (reset, "none", b""),
    ],
)
def test_a_reply_says_how_it_ended(answer: Callable[[socket.socket], None], ending: str, body: bytes) -> None:
    with answering(answer) as port:
        wire = Wire(port)
        reply = wire.ask(fetch("/"))
        wire.close()
    assert (reply.ending, reply.body, reply.sent_at is not None) == (ending, body, True)


def test_where_nobody_listens_there_is_no_connection() -> None:
    assert Wire(free_port()).ask(fetch("/")) == Reply("refused")


ANSWERS = {"old": {b"?": {"a": 0.9, "b": 0.8}}, "new": {b"?": {"c": 0.7, "d": 0.6}}}


@pytest.mark.parametrize(
    ("version", "found", "problem"),
    [
        ("old", {"a": 0.9, "b": 0.8}, ""),
        ("new", {"a": 0.9, "b": 0.8}, "says new and finds a, b"),
        ("old", {"a": 0.9, "d": 0.6}, "says old and finds d"),
        ("old", {"a": 0.7, "b": 0.6}, "says old and has other scores"),
        ("older", {"a": 0.9, "b": 0.8}, "names the version older"),
    ],
)
def test_an_answer_that_is_not_its_version_s_is_told(version: str, found: dict[str, float], problem: str) -> None:
    results = [{"id": identity, "score": score} for identity, score in found.items()]
    body = json.dumps({"versions": {"index": version}, "results": results}).encode()
    assert Known(ANSWERS).problem(b"?", body) == problem
