"""Raw connections to a server, for what no well-behaved client sends."""

import http
import http.client
import io
import socket
from typing import Protocol
from urllib.parse import urlsplit

from tests.support.bodies import FORM
from tests.support.servers import PATIENCE_S


class Listening(Protocol):
    """A server with an address: one of `tests.support.servers` or `tests.support.wire`."""

    @property
    def url(self) -> str: ...


def connect(server: Listening) -> socket.socket:
    """An open connection; whoever waits on it waits for 30 s at most."""
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S / 2)


def head(*lines: str, path: str = "/search", kind: str = FORM["Content-Type"]) -> bytes:
    """The head of an upload whose body is of this kind, with more headers."""
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", *lines, "", "")).encode("latin-1")


def answer(connection: socket.socket) -> tuple[int, str]:
    """Status and body of the next answer on a raw connection; what comes behind it is left for the next call."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        if not (byte := connection.recv(1)):
            raise http.client.RemoteDisconnected(f"the connection ended after {received!r}")
        received += byte
    status_line, _, headers = received.partition(b"\r\n")
    status = int(status_line.split()[1])
    if status == http.HTTPStatus.CONTINUE:
        return answer(connection)
    announced = http.client.parse_headers(io.BytesIO(headers))["Content-Length"]
    body, length = b"", 65536 if announced is None else int(announced)  # without a length: until the connection ends
    while len(body) < length and (part := connection.recv(length - len(body))):
        body += part
    return status, body.decode()


def ended(connection: socket.socket) -> bool:
    """Waits for the end of a connection; whether it came without another byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
