"""Bad requests over HTTP: one clear answer each, nothing told that should not be, and the server goes on."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from indexer.versions import IndexDirectory
from tests.support.bad_requests import BAD_REQUESTS, SECRET, BadRequest
from tests.support.bodies import FORM, form
from tests.support.calls import assert_problem, assert_unharmed, metric
from tests.support.photos import car_photo
from tests.support.servers import Server, running_server


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory, gallery: Path) -> Iterator[Server]:
    """A server with one good data set and several that cannot be used."""
    folder = tmp_path_factory.mktemp("target")
    (folder / "empty").mkdir()
    (folder / "columns.csv").write_text("path,label\na.jpg,b\n")
    sets = {"empty": folder / "empty", "gone": folder / "gone", "columns": folder / "columns.csv", "demo": gallery}
    names = json.dumps({name: str(path) for name, path in sets.items()})
    with running_server(real_index.root, folder / "log", DATASETS=names, STATE_DIR=str(folder)) as server:
        yield server


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.what)
def test_a_bad_request_gets_its_code_and_the_next_good_one_its_answer(
    target: Server, bad: BadRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pid = target.process.pid
    response = target.client.request(bad.method, bad.path, **bad.arguments)
    assert_problem(response, bad.code, SECRET, str(tmp_path_factory.getbasetemp()))
    assert_unharmed(target, pid)


@tried(max_examples=150, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6), kept=st.floats(0, 1)
)
def test_a_damaged_photo_is_found_or_refused_and_never_a_failure(
    server: Server, edits: list[tuple[int, int]], kept: float
) -> None:
    photo = bytearray(car_photo())
    for place, value in edits:
        photo[place % len(photo)] = value
    damaged = bytes(photo[: max(1, round(len(photo) * kept))])
    response = server.client.post("/search", files={"file": damaged})
    if response.status_code != 200:
        assert response.json()["code"].startswith(("image_", "unsupported_image_format"))


def test_every_bad_request_is_counted_under_its_code(target: Server) -> None:
    series = 'carsearch_answers_total{code="image_degenerate",route="/search",status="422"}'
    before = metric(target, series)
    strip = next(bad for bad in BAD_REQUESTS if bad.code == "image_degenerate")
    target.client.request(strip.method, strip.path, **strip.arguments)
    assert metric(target, series) == before + 1


def test_the_bodies_of_bad_requests_are_not_in_the_log(target: Server) -> None:
    for bad in BAD_REQUESTS[:30]:
        target.client.request(bad.method, bad.path, **bad.arguments)
    assert SECRET not in target.log
    assert max(map(len, target.log.splitlines())) < 4096


def test_an_image_path_that_a_client_resolves_upwards_leads_nowhere(target: Server) -> None:
    assert_problem(target.client.get("/gallery/../../../etc/passwd"), "not_found")


def test_a_method_that_is_not_allowed_is_told_which_are(target: Server) -> None:
    assert target.client.get("/search").headers["allow"] == "POST"
    assert target.client.post("/evaluations/0").headers["allow"] == "DELETE, GET"  # from two routes


def test_headers_that_mean_nothing_to_us_change_nothing(target: Server) -> None:
    headers = [
        (b"Authorization", b"Bearer caf\xe9"),
        (b"X-API-Key", b"\xff\xfe"),
        (b"X-Forwarded-For", b"127.0.0.1, <script>"),
        (b"Range", b"bytes=0-1,2-3"),
        (b"Host", b"elsewhere.invalid"),
        *((name.encode(), value.encode()) for name, value in FORM.items()),
    ]
    response = target.client.post("/search", content=form(car_photo(0, 0)), headers=headers)
    assert response.status_code == 200
    assert "elsewhere" not in response.text


@pytest.mark.parametrize(("offered", "kept"), [("abc-1.2_Z", True), ("x" * 65, False), ("a b", False), ("ä", False)])
def test_a_request_id_is_taken_over_when_it_is_harmless(target: Server, offered: str, kept: bool) -> None:
    response = target.client.get("/nowhere", headers=[(b"X-Request-Id", offered.encode())])
    assert (response.headers["x-request-id"] == offered) is kept
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_no_answer_allows_another_origin(target: Server) -> None:
    response = target.client.options(
        "/search", headers={"Origin": "http://a.b", "Access-Control-Request-Method": "POST"}
    )
    assert not [name for name in response.headers if name.startswith("access-control-")]


def test_made_up_addresses_make_no_new_metric_series(target: Server) -> None:
    target.client.get("/first")
    target.client.get("/gallery/first/image")
    series = len(target.client.get("/metrics").text.splitlines())
    for number in range(200):
        assert target.client.get(f"/made/up/{number}").status_code == 404
        assert target.client.get(f"/gallery/{number}/image").status_code == 404
    assert len(target.client.get("/metrics").text.splitlines()) == series


def test_a_failure_of_the_server_says_nothing_of_its_inside_and_passes(
    tmp_path: Path, real_index: IndexDirectory, gallery: Path
) -> None:
    state = tmp_path / "state"
    sets = json.dumps({"demo": str(gallery)})
    with running_server(real_index.root, tmp_path / "log", DATASETS=sets, STATE_DIR=str(state)) as server:
        (state / "evaluations").rename(tmp_path / "aside")
        assert_problem(server.client.post("/evaluate", json={"dataset": "demo"}), "internal", str(tmp_path))
        assert "FileNotFoundError" in server.log
        assert metric(server, 'carsearch_answers_total{code="internal",route="/evaluate",status="500"}') == 1
        (tmp_path / "aside").rename(state / "evaluations")
        assert httpx.post(f"{server.url}/evaluate", json={"dataset": "demo"}).status_code == 200
