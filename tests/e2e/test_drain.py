"""SIGTERM: not ready at once, requests still answered for the drain, then the end; a second signal does not wait."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from indexer.versions import IndexDirectory
from tests.support.calls import assert_problem, eventually, metric, search
from tests.support.photos import car_photo
from tests.support.servers import Server, running_server

LONG = "600"


@contextmanager
def draining(root: Path, log: Path, drain_s: str) -> Iterator[Server]:
    """A server that has got SIGTERM and has noticed."""
    with running_server(root, log, DRAIN_S=drain_s) as server:
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.client.get("/readyz").status_code == 503, "the server drains")
        yield server


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_drains_says_so_goes_on_answering_and_ends_at_a_second_signal(
    tmp_path: Path, fake_index: IndexDirectory, second: signal.Signals
) -> None:
    with draining(fake_index.root, tmp_path / "log", LONG) as server:
        refused = server.client.get("/readyz")
        assert_problem(refused, "draining")
        assert int(refused.headers["retry-after"]) >= 1
        assert server.client.get("/livez").status_code == 200
        assert search(server, car_photo(1, 0))["nearest"]["class"] == "car 1"
        assert metric(server, "carsearch_draining") == 1
        told = f"draining: not ready any more, and stopping in {LONG} s"
        eventually(lambda: told in server.log, "the log tells")
        # A connection that is kept would be closed under the next request on it.
        assert server.client.get("/livez").headers["connection"] == "close"
        server.process.send_signal(second)
        assert server.process.wait(20) in (-signal.SIGTERM, -signal.SIGINT)


def test_the_drain_ends_by_itself(tmp_path: Path, fake_index: IndexDirectory) -> None:
    with draining(fake_index.root, tmp_path / "log", "1") as server:
        assert server.process.wait(20) == -signal.SIGTERM
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/livez")


def test_without_a_drain_the_server_ends_at_once(tmp_path: Path, fake_index: IndexDirectory) -> None:
    with running_server(fake_index.root, tmp_path / "log") as server:
        kept = server.client.get("/livez")
        assert "connection" not in kept.headers
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == -signal.SIGTERM
