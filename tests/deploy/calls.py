"""Requests as bytes, and what the answers must be like."""

import http.client
import socket

import httpx

from service.http.errors import MEDIA_TYPE
from tests.support.photos import car_photo

MIB = 1 << 20
PHOTO = {"file": ("a secret name.jpg", car_photo(1, 9))}


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    """An error in the server's own shape."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, MEDIA_TYPE)
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:carsearch:error:{code}")
    assert body["request_id"] == answer.headers["X-Request-Id"]


def raw(port: int, request: bytes) -> httpx.Response:
    """Sends bytes and reads one answer; one of status 0 stands for a connection that ended without any."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
        except http.client.RemoteDisconnected:
            return httpx.Response(0)
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
