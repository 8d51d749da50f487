"""Raw connections to a server, for what no well-behaved client sends."""

import http.client
import socket
from urllib.parse import urlsplit

from tests.support.bodies import FORM
from tests.support.servers import PATIENCE_S, Server


def connect(server: Server) -> socket.socket:
    """An open connection; whoever waits on it waits for 30 s at most."""
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S / 2)


def head(*lines: str) -> bytes:
    """The head of a search, with more headers."""
    return "\r\n".join(
        ("POST /search HTTP/1.1", "Host: x", f"Content-Type: {FORM['Content-Type']}", *lines, "", "")
    ).encode("latin-1")


def answer(connection: socket.socket) -> tuple[int, str]:
    """Status and body of what comes back on a raw connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read().decode()
