"""The proxy's limits of a client: requests a second, and connections with a request in flight."""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from bench.serving import free_port
from service.settings import load_settings
from tests.deploy.calls import MIB, assert_problem, raw
from tests.deploy.nginx import compose_values, needs_nginx, port_of, running_nginx, unchanged
from tests.support.calls import eventually
from tests.support.servers import Server

pytestmark = [pytest.mark.deploy, needs_nginx]
OTHER = "127.0.0.2"
BESIDE_A_RESTART = 56
"""Searches in flight for which one replica has places, when the others have just been restarted or are gone."""

HELD = b"POST /search HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nfirst"


def ask(url: str, address: str = "127.0.0.1") -> httpx.Response:
    """One request on a connection of its own, from a client's address."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as client:
        return client.get(url)


def probes(url: str, count: int) -> list[int]:
    """The statuses of as many of each of the probes."""
    return [ask(f"{url}{path}").status_code for path in ("/livez", "/readyz") for _ in range(count)]


@contextmanager
def uploads_in_flight(port: int, count: int) -> Iterator[None]:
    """Clients that send a part of their photo and wait."""
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(HELD)
        yield


def assert_refused(answer: httpx.Response) -> None:
    """The proxy's own 429."""
    assert_problem(answer, 429, "rate_limited")
    assert answer.headers["Retry-After"] == "1"


def test_who_sends_more_than_the_rate_is_refused_and_nobody_else(tmp_path: Path, server: Server) -> None:
    rate = {"PROXY_RATE": "1r/m", "PROXY_BURST": "2"}
    with running_nginx(tmp_path / "nginx", [port_of(server.url)], unchanged, **rate) as nginx:
        assert [ask(f"{nginx.url}/info").status_code for _ in range(3)] == [200] * 3  # one, and two at once
        assert_refused(ask(f"{nginx.url}/info"))
        head = f"POST /search HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {8 * MIB}\r\n\r\n"
        assert_refused(raw(nginx.port, head.encode()))  # before its body is sent
        assert probes(nginx.url, 10) == [200] * 20
        assert ask(f"{nginx.url}/info", OTHER).status_code == 200
        assert_refused(ask(f"{nginx.url}/info"))
    refused = [line for line in nginx.log if line["status"] == 429]
    assert [line["upstream"] for line in refused] == [""] * 3  # no server was asked


def test_probes_are_not_counted(tmp_path: Path, server: Server) -> None:
    rate = {"PROXY_RATE": "1r/m", "PROXY_BURST": "1"}
    with running_nginx(tmp_path / "nginx", [port_of(server.url)], unchanged, **rate) as nginx:
        assert probes(nginx.url, 10) == [200] * 20
        assert [ask(f"{nginx.url}/info").status_code for _ in range(3)] == [200, 200, 429]


def test_who_has_too_many_requests_in_flight_is_refused_and_nobody_else(tmp_path: Path, server: Server) -> None:
    limits = {"PROXY_CONNECTIONS": "2", "PROXY_BODY_TIMEOUT": "5m"}
    with running_nginx(tmp_path / "nginx", [port_of(server.url)], unchanged, **limits) as nginx:
        url = f"{nginx.url}/info"
        with uploads_in_flight(nginx.port, 2):
            eventually(lambda: ask(url).status_code == 429, "both uploads are in flight")
            assert_refused(ask(url))
            assert probes(nginx.url, 2) == [200] * 4
            assert ask(url, OTHER).status_code == 200
        with uploads_in_flight(nginx.port, 1):
            eventually(lambda: ask(url).status_code == 200, "the two have ended, and there is room beside one")


def test_who_sends_too_many_batches_at_once_is_refused_and_may_search(tmp_path: Path, server: Server) -> None:
    with (
        running_nginx(tmp_path / "nginx", [port_of(server.url)], unchanged, PROXY_BODY_TIMEOUT="5m") as nginx,
        ExitStack() as stack,
    ):
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", nginx.port)))
            connection.sendall(HELD.replace(b"/search", b"/search/batch"))
        url = f"{nginx.url}/search/batch"
        eventually(lambda: httpx.post(url, content=b"x").status_code == 429, "four batches are in flight")
        assert_refused(httpx.post(url, content=b"x"))
        assert httpx.post(f"{nginx.url}/search", content=b"x").status_code == 415


def test_with_the_defaults_a_burst_is_answered(tmp_path: Path, server: Server) -> None:
    defaults = {name: compose_values()[name] for name in ("PROXY_RATE", "PROXY_BURST", "PROXY_CONNECTIONS")}
    burst = int(defaults["PROXY_BURST"])
    with (
        running_nginx(tmp_path / "nginx", [port_of(server.url)], unchanged, **defaults) as nginx,
        httpx.Client(base_url=nginx.url) as client,
    ):
        assert [client.get("/info").status_code for _ in range(burst)] == [200] * burst


def one_search_each(text: str) -> str:
    """A configuration in which every line of a server takes one search."""
    return re.sub(r"max_conns=\d+", "max_conns=1", text)


def test_searches_for_which_no_server_has_a_place_are_refused_and_no_server_is_asked(tmp_path: Path) -> None:
    with ExitStack() as stack:
        busy = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # takes searches and answers none
        nginx = stack.enter_context(running_nginx(tmp_path / "nginx", [busy.getsockname()[1]], one_search_each))
        searches = [stack.enter_context(socket.create_connection(("127.0.0.1", nginx.port))) for _ in range(3)]
        for search in searches:  # for the line of the server and its two as backup
            search.sendall(b"POST /search HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nphoto")
            stack.enter_context(busy.accept()[0])
        with uploads_in_flight(nginx.port, 2):  # which take no place
            refused = httpx.post(f"{nginx.url}/search", content=b"photo", headers={"X-Request-Id": "mine"})
        assert_problem(refused, 429, "overloaded")
        assert (refused.headers["Retry-After"], refused.headers["X-Request-Id"]) == ("1", "mine")
        (told,) = [line for line in nginx.log if line["status"] == 429]
        assert (told["upstream"], told["request_id"]) == ("searches", "mine")


def test_searches_meet_a_server_that_is_gone_once_while_another_has_places(tmp_path: Path) -> None:
    def for_long(text: str) -> str:
        return text.replace("fail_timeout=2s", "fail_timeout=1h")

    with ExitStack() as stack:
        busy = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # takes searches and answers none
        ports = [busy.getsockname()[1], free_port()]
        nginx = stack.enter_context(running_nginx(tmp_path / "nginx", ports, for_long))
        with ExitStack() as searches:
            for _ in range(BESIDE_A_RESTART):
                search = searches.enter_context(socket.create_connection(("127.0.0.1", nginx.port)))
                search.sendall(b"POST /search HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nphoto")
                stack.enter_context(busy.accept()[0])
        eventually(lambda: len(nginx.log) == BESIDE_A_RESTART, "all clients have left")
        gone = f":{ports[1]}"
        assert sum(gone in line["upstream"] for line in nginx.log) == 1


def test_the_proxy_passes_on_as_many_searches_as_a_replica_has_places() -> None:
    settings = load_settings()
    most = sum(int(count) for count in re.findall(r"max_conns=(\d+)", compose_values()["SEARCH_SERVERS"]))
    assert most <= settings.max_queue < 2 * most
