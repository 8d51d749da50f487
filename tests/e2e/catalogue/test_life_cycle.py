"""A server that is stopped, halted, or whose clock jumps; the numbers are those of the catalogue of cases.

127 (kill -9) and 128 (SIGTERM under load) are the long runs `kills` and `stops` of `tests/soak`, which run here in
small; 132 (memory) is a kill too, after which docker-compose.yml has it started again; 134 (read-only root) is tried on
the image, by docker/test-image.sh.
"""

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.jobs import LOST_S, Evaluations
from service.observability.metrics import Metrics
from tests.deploy.replicas import Replica
from tests.e2e.catalogue.processes import changed_server, ended_within, in_background
from tests.support.bodies import form, zip_of
from tests.support.calls import assert_problem, assert_unharmed, at_work, evaluate, eventually, metric, search
from tests.support.connections import answer, connect, head
from tests.support.photos import car_photo, encoded, write_gallery
from tests.support.servers import Server, clean_environment, running_server

SOON_S = 15
"""Far below the 30 s that requests have, and the 45 s after which a container is killed."""

HALTED_S = 6
"""Longer than the 5 s after which a connection without a request is closed."""

SET_OF_96 = {f"{kind}/{shot}.jpg": car_photo(kind, shot) for kind in range(8) for shot in range(12)}

SLOW_LOAD = """
import time
from service.engine import Engine
load = Engine.load.__func__
def slow(cls, *arguments, previous=None, **options):
    if (previous is None) == {first}:
        print("loading slowly", flush=True)
        time.sleep(120)
    return load(cls, *arguments, previous=previous, **options)
Engine.load = classmethod(slow)
"""

SLOW_EVALUATION = """
import time
import service.jobs, service.http.server
evaluate = service.jobs.evaluate
def slow(*arguments, **options):
    time.sleep(3)
    return evaluate(*arguments, **options)
service.jobs.evaluate = slow
service.http.server.GRACE_S = {grace_s}
"""

SHORT_GRACE = "import service.http.server\nservice.http.server.GRACE_S = 1"

JUMPING_CLOCK = """
import pathlib, time
jump, real, real_ns = pathlib.Path({path!r}), time.time, time.time_ns
time.time = lambda: real() + float(jump.read_text())
time.time_ns = lambda: real_ns() + int(float(jump.read_text()) * 1e9)
"""


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Settings that name every directory a server writes to."""
    for name in ("spool", "state", "cache"):
        (tmp_path / name).mkdir()
    return {f"{name.upper()}_DIR": str(tmp_path / name) for name in ("spool", "state", "cache")}


def assert_nothing_left(tmp_path: Path, log: str) -> None:
    """No half file, and no failure in the log."""
    assert list((tmp_path / "spool").iterdir()) == []
    for record in (tmp_path / "state").rglob("*.json"):
        assert json.loads(record.read_bytes())["status"] in ("done", "cancelled")
    assert list((tmp_path / "state").rglob("*.tmp")) == []
    assert "Traceback" not in log


@pytest.mark.parametrize("after_s", [0.2, 0.7, 1.2, 1.7])
def test_129_a_server_may_be_stopped_at_any_moment_of_its_start(
    after_s: float, places: dict[str, str], tmp_path: Path, real_index: IndexDirectory
) -> None:
    server = Replica(real_index.root, tmp_path / "log", environment=clean_environment(**places))
    server.begin()
    time.sleep(after_s)
    started = time.monotonic()
    assert server.end(signal.SIGTERM) == -signal.SIGTERM
    assert time.monotonic() - started < SOON_S
    assert_nothing_left(tmp_path, (tmp_path / "log").read_text())


@pytest.mark.parametrize("first", [True, False], ids=["129 while the first index is loaded", "129 during a swap"])
def test_a_server_does_not_wait_for_an_index_that_it_will_not_serve(
    first: bool, places: dict[str, str], tmp_path: Path, gallery: Path, real_embedder: Embedder
) -> None:
    index = IndexDirectory(tmp_path / "index")
    old = build_index(gallery, index, real_embedder).version
    new = build_index(write_gallery(tmp_path / "new", first_kind=20), index, real_embedder).version
    index.switch(old)
    with changed_server(SLOW_LOAD.format(first=first), index.root, tmp_path / "log", "/livez", **places) as server:
        if not first:
            eventually(lambda: server.client.get("/readyz").status_code == 200, "the old index is served")
            index.switch(new)
        eventually(lambda: "loading slowly" in server.log, "an index is being loaded")
        waiting = in_background(lambda: server.client.post("/search", files={"file": car_photo(1, 0)}))
        eventually(waiting.done, "the search is answered")
        server.process.send_signal(signal.SIGTERM)
        assert ended_within(server, SOON_S) == -signal.SIGTERM
    assert waiting.result().status_code == (503 if first else 200)
    assert_nothing_left(tmp_path, server.log)
    assert index.verify(index.current()).id == (old if first else new)


@pytest.mark.parametrize(
    ("grace_s", "code"), [(30, "ok"), (1, "draining")], ids=["129 in time", "129 longer than a server waits"]
)
def test_an_evaluation_is_answered_whole_or_told_that_the_server_stops(
    grace_s: int, code: str, places: dict[str, str], tmp_path: Path, real_index: IndexDirectory
) -> None:
    change = SLOW_EVALUATION.format(grace_s=grace_s)
    with changed_server(change, real_index.root, tmp_path / "log", **places) as server:
        waiting = in_background(lambda: evaluate(server, zip_of(SET_OF_96)))
        eventually(lambda: metric(server, "carsearch_evaluation_running") == 1, "the evaluation runs")
        server.process.send_signal(signal.SIGTERM)
        assert ended_within(server, SOON_S) == -signal.SIGTERM
        if code == "ok":
            assert waiting.result(SOON_S).json()["total"] == len(SET_OF_96)
        else:
            assert_problem(waiting.result(SOON_S), code)
    assert_nothing_left(tmp_path, server.log)


@pytest.mark.parametrize("finished", [True, False], ids=["129 a slow upload", "129 an upload that stalls"])
def test_an_upload_that_had_begun_is_waited_for_until_its_deadline(
    finished: bool, places: dict[str, str], tmp_path: Path, real_index: IndexDirectory
) -> None:
    body = form(car_photo(1, 0))
    with running_server(real_index.root, tmp_path / "log", True, **places) as server, connect(server) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}") + body[:100])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        if finished:
            connection.sendall(body[100:])
        status, text = answer(connection)
        assert (status, '"car 1"' in text, "upload_timeout" in text) == (
            (200, True, False) if finished else (408, False, True)
        )
        assert ended_within(server, SOON_S) == -signal.SIGTERM
    assert_nothing_left(tmp_path, server.log)


def test_129_an_archive_that_takes_longer_than_a_server_waits_ends_with_a_whole_answer_or_none(
    places: dict[str, str], tmp_path: Path, real_index: IndexDirectory
) -> None:
    archive = form(zip_of(SET_OF_96), "archive")
    with changed_server(SHORT_GRACE, real_index.root, tmp_path / "log", **places) as server:
        with connect(server) as connection:
            begun = head(f"Content-Length: {len(archive)}").replace(b"/search", b"/evaluate") + archive[:5000]
            connection.sendall(begun)
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            status, text = answer(connection)
            assert (status, '"draining"' in text) == (503, True)
        assert ended_within(server, SOON_S) == -signal.SIGTERM
    assert_nothing_left(tmp_path, server.log)


@contextmanager
def begun_upload(server: Server) -> Iterator[tuple[socket.socket, bytes]]:
    """An upload of which a part has come; gives its connection and what is left."""
    body = form(car_photo(1, 0))
    with connect(server) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}") + body[:100])
        time.sleep(0.3)
        yield connection, body[100:]


def test_130_a_second_sigterm_ends_the_drain_and_still_answers_what_had_begun(
    tmp_path: Path, real_index: IndexDirectory
) -> None:
    with running_server(real_index.root, tmp_path / "log", DRAIN_S="600") as server, begun_upload(server) as begun:
        connection, rest = begun
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.client.get("/readyz").status_code == 503, "the server drains")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        connection.sendall(rest)
        assert answer(connection)[0] == 200
        assert ended_within(server, SOON_S) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("signals", "status"),
    [([signal.SIGINT, signal.SIGINT], 130), ([signal.SIGHUP], -signal.SIGHUP)],
    ids=["130 Ctrl-C twice", "130 a terminal that is closed"],
)
def test_who_does_not_want_to_wait_need_not(
    signals: list[signal.Signals], status: int, tmp_path: Path, real_index: IndexDirectory
) -> None:
    with running_server(real_index.root, tmp_path / "log") as server, begun_upload(server) as (connection, _):
        for number in signals:
            server.process.send_signal(number)
            time.sleep(0.5)
        assert ended_within(server, 5) == status
        with suppress(ConnectionError):  # without a byte of an answer, or with a whole one
            status_told, text = answer(connection)
            assert (status_told, '"draining"' in text) == (503, True)


def test_131_a_server_that_was_halted_goes_on_and_tells_whom_it_kept_waiting(
    tmp_path: Path, real_index: IndexDirectory
) -> None:
    slow, body = encoded_noise(), form(car_photo(1, 0))
    request = head(f"Content-Length: {len(body)}") + body
    settings = {"SEARCH_THREADS": "1", "REQUEST_DEADLINE_S": "2"}
    with (
        running_server(real_index.root, tmp_path / "log", True, **settings) as server,
        ThreadPoolExecutor(12) as clients,
        connect(server) as kept,
    ):
        kept.sendall(request)
        assert answer(kept)[0] == 200
        replies = [clients.submit(lambda: server.client.post("/search", files={"file": slow})) for _ in range(12)]
        eventually(lambda: metric(server, "carsearch_queue_waiting") > 4, "searches wait")
        server.process.send_signal(signal.SIGSTOP)
        kept.sendall(request)
        time.sleep(HALTED_S)
        server.process.send_signal(signal.SIGCONT)
        responses = [reply.result(SOON_S) for reply in replies]
        for late in (response for response in responses if response.status_code != 200):
            assert_problem(late, "deadline_exceeded")
        assert Counter(response.status_code for response in responses)[503] > 0
        assert answer(kept)[0] == 200  # and is not taken for a connection that nobody uses
        eventually(lambda: at_work(server) == 0, "nothing is left over")
        assert_unharmed(server, server.process.pid)


def encoded_noise() -> bytes:
    """A photo that takes a tenth of a second to decode."""
    return encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)), "PNG")


def test_133_no_deadline_follows_a_clock_that_jumps(tmp_path: Path, real_index: IndexDirectory) -> None:
    clock = tmp_path / "clock"

    def jump(seconds: float) -> None:
        (tmp_path / "next").write_text(str(seconds))
        (tmp_path / "next").replace(clock)

    jump(0)
    change = JUMPING_CLOCK.format(path=str(clock))
    with changed_server(change, real_index.root, tmp_path / "log", REQUEST_DEADLINE_S="5") as server:
        for seconds in (3600, 0, -3600):
            with begun_upload(server) as (connection, rest):
                jump(seconds)
                for part in (rest[:100], rest[100:]):  # a deadline is looked at again for each part that comes
                    connection.sendall(part)
                    time.sleep(0.2)
                assert answer(connection)[0] == 200
            assert search(server, car_photo(1, 0))["nearest"]["class"] == "car 1"
        assert "Traceback" not in server.log


def test_127_half_a_record_of_an_evaluation_is_removed_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "evaluations"
    folder.mkdir()
    kept = {"done.json", "done.cancel", "new.1.tmp", "new.cancel"}
    gone = {"old.1.tmp", "done.1.tmp", "old.cancel"}
    then = time.time() - 2 * LOST_S
    for name in kept | gone:
        (folder / name).touch()
        if not name.startswith("new"):
            os.utime(folder / name, (then, then))
    Evaluations(tmp_path, Metrics()).close()
    assert {path.name for path in folder.iterdir()} == kept
