"""What is too much: bodies too large or too slow, more searches than can be answered, answers that come too late."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from indexer.versions import IndexDirectory
from tests.support.bodies import BOUNDARY, FORM, form, zip_of
from tests.support.calls import assert_problem, assert_unharmed, at_work, evaluate, eventually, metric
from tests.support.connections import answer, connect, head
from tests.support.photos import car_photo
from tests.support.servers import Server, running_server

LIMIT = 300_000


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory) -> Iterator[Server]:
    """A server with little room: one search at a time, one waiting, small bodies, one second for an upload."""
    with running_server(
        real_index.root,
        tmp_path_factory.mktemp("tight") / "log",
        SEARCH_THREADS="1",
        MAX_QUEUE="1",
        BODY_DEADLINE_S="1",
        MAX_BODY_BYTES=str(LIMIT),
        MAX_ARCHIVE_BYTES=str(2 * LIMIT),
        MAX_ARCHIVE_ENTRIES="10",
        MAX_SYNC_PHOTOS="3",
    ) as server:
        yield server


@pytest.mark.parametrize("declared", [LIMIT + 1, 10**12])
def test_a_body_that_declares_too_much_is_refused_before_it_is_sent(tight: Server, declared: int) -> None:
    with connect(tight) as connection:
        connection.sendall(head(f"Content-Length: {declared}", "Expect: 100-continue"))
        status, body = answer(connection)
        assert (status, '"payload_too_large"' in body) == (413, True)
        assert connection.recv(1) == b""
    assert_unharmed(tight, tight.process.pid)


@pytest.mark.parametrize("length", ["-1", "abc", "1, 2", "9" * 5000])
def test_a_content_length_that_is_no_number_is_refused(tight: Server, length: str) -> None:
    with connect(tight) as connection:
        connection.sendall(head(f"Content-Length: {length}"))
        assert answer(connection)[0] == 400
    assert_unharmed(tight, tight.process.pid)


@pytest.mark.parametrize("path", ["/search", "/evaluate"])
def test_a_body_in_chunks_is_cut_off_at_the_limit(tight: Server, path: str) -> None:
    field = "file" if path == "/search" else "archive"
    body = form(bytes(3 * LIMIT), field)
    chunks = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    assert_problem(httpx.post(f"{tight.url}{path}", content=chunks, headers=FORM), "payload_too_large")
    assert_unharmed(tight, tight.process.pid)


def test_an_archive_may_be_larger_than_a_photo_but_json_may_not(tight: Server) -> None:
    padded = zip_of({"a/1.jpg": car_photo() + bytes(LIMIT), "a/2.jpg": car_photo(0, 1), "b/1.jpg": car_photo(1)})
    assert len(padded) > LIMIT
    assert evaluate(tight, padded).status_code == 200
    with connect(tight) as connection:  # the body is never sent: it would meet a connection that is being closed
        as_form = head(f"Content-Length: {LIMIT + 1}").replace(b"/search", b"/evaluate")
        connection.sendall(as_form.replace(FORM["Content-Type"].encode(), b"application/json"))
        status, body = answer(connection)
    assert (status, '"payload_too_large"' in body) == (413, True)


def test_060_an_upload_that_stalls_is_told_so_and_cut_off(tight: Server) -> None:
    with connect(tight) as connection:
        connection.sendall(head(f"Content-Length: {LIMIT}") + f"--{BOUNDARY}\r\n".encode())
        status, body = answer(connection)
        assert (status, '"upload_timeout"' in body) == (408, True)
        assert connection.recv(1) == b""
    series = 'carsearch_answers_total{code="upload_timeout",route="/search",status="408"}'
    assert metric(tight, series) == 1
    assert_unharmed(tight, tight.process.pid)


def test_065_a_client_that_goes_away_in_the_middle_harms_nobody(tight: Server) -> None:
    series = 'carsearch_answers_total{code="client_disconnected",route="/search",status="400"}'
    before = metric(tight, series)
    for _ in range(5):
        with connect(tight) as connection:
            connection.sendall(head(f"Content-Length: {LIMIT}") + form(car_photo())[:500])
    eventually(lambda: metric(tight, series) == before + 5, "all five counted as gone")
    assert at_work(tight) == 0
    assert_unharmed(tight, tight.process.pid)


def test_too_many_searches_at_once_are_refused_at_once_and_never_fail(tight: Server) -> None:
    photo = car_photo(1, 0, (640, 480))

    def status(_: int) -> int:
        response = tight.client.post("/search", files={"file": photo})
        if response.status_code != 200:
            assert_problem(response, "overloaded")
            assert int(response.headers["retry-after"]) >= 1
        return response.status_code

    with ThreadPoolExecutor(24) as clients:
        statuses = Counter(clients.map(status, range(150)))
    assert statuses.keys() == {200, 429}
    assert at_work(tight) == 0
    assert_unharmed(tight, tight.process.pid)


@pytest.mark.parametrize(("photos", "code"), [(4, "evaluation_too_large"), (11, "archive_too_large")])
def test_a_set_that_is_too_large_is_refused(tight: Server, photos: int, code: str) -> None:
    archive = zip_of({f"a/{number}.jpg": car_photo(0, number) for number in range(photos)})
    assert_problem(evaluate(tight, archive), code)
    assert_unharmed(tight, tight.process.pid)


def test_a_set_too_large_to_wait_for_is_evaluated_in_the_background(tight: Server) -> None:
    archive = zip_of({f"{kind}/{shot}.jpg": car_photo(kind, shot) for kind in range(2) for shot in range(2)})
    begun = evaluate(tight, archive, background=True)
    assert begun.status_code == 202
    eventually(lambda: tight.client.get(begun.headers["location"]).json()["status"] == "done", "the evaluation is done")


def test_065_a_search_whose_client_has_gone_is_never_begun(
    tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory
) -> None:
    log = tmp_path_factory.mktemp("gone") / "log"
    body = form(car_photo(0, 0, (2000, 1500)))
    with running_server(real_index.root, log, SEARCH_THREADS="1") as server:
        connections = [connect(server) for _ in range(20)]
        for connection in connections:
            connection.sendall(head(f"Content-Length: {len(body)}") + body)
        for connection in connections:
            connection.close()
        series = 'carsearch_answers_total{code="client_disconnected",route="/search",status="400"}'
        eventually(lambda: at_work(server) == 0 and metric(server, series) > 0, "gone and counted")
        assert metric(server, 'carsearch_search_stage_seconds_count{stage="forward"}') < 20


def test_an_answer_that_would_come_too_late_is_not_waited_for(
    tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory
) -> None:
    log = tmp_path_factory.mktemp("late") / "log"
    with running_server(real_index.root, log, REQUEST_DEADLINE_S="0.000001") as server:
        late = server.client.post("/search", files={"file": car_photo()}), server.client.get("/gallery/classes")
        for response in late:
            assert_problem(response, "deadline_exceeded")
            assert int(response.headers["retry-after"]) >= 1
        assert server.client.get("/readyz").status_code == 200
        eventually(lambda: at_work(server) == 0, "the threads are free")
