"""Raw connections to a server, for what no well-behaved client sends."""

import http.client
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


def head(*lines: str, path: str = "/search") -> bytes:
    """The head of an upload, with more headers."""
    return "\r\n".join(
        (f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {FORM['Content-Type']}", *lines, "", "")
    ).encode("latin-1")


def answer(connection: socket.socket) -> tuple[int, str]:
    """Status and body of what comes back on a raw connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read().decode()


def ended(connection: socket.socket) -> bool:
    """Waits for the end of a connection; whether it came without another byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
