"""Bad requests over HTTP: one clear answer each, nothing told that should not be, and the application goes on."""

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from indexer.versions import IndexDirectory
from model.errors import ImageUndecodable, StoreUnavailable
from service.engine import Engine
from service.http.context import RequestContext, RouteInfo
from service.http.errors import response_to
from tests.api.conftest import Gate
from tests.support.app import AppClient, running_app
from tests.support.bad_requests import BAD_REQUESTS, SECRET, BadRequest
from tests.support.bodies import FORM, form
from tests.support.calls import assert_problem, at_work, evaluate_named, eventually, metric, search
from tests.support.photos import car_photo

PHOTO = {"file": car_photo(1, 0)}
INTERNAL = 'carsearch_answers_total{code="internal",route="/search",status="500"}'


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, fake_index: IndexDirectory, gallery: Path) -> Iterator[AppClient]:
    """An application with one good data set and several that cannot be used."""
    folder = tmp_path_factory.mktemp("target")
    (folder / "empty").mkdir()
    (folder / "gone").mkdir()
    (folder / "columns.csv").write_text("name,label\na.jpg,b\n")
    sets = {"empty": folder / "empty", "gone": folder / "gone", "columns": folder / "columns.csv", "demo": gallery}
    with running_app(fake_index.root, datasets=sets, state_dir=folder) as client:
        (folder / "gone").rmdir()
        yield client


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.what)
def test_a_bad_request_gets_its_code_and_the_next_good_one_its_answer(
    target: AppClient, bad: BadRequest, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "carsearch")
    response = target.request(bad.method, bad.path, **bad.arguments)
    assert_problem(response, bad.code, SECRET, str(tmp_path_factory.getbasetemp()))
    assert SECRET not in caplog.text
    assert max(len(record.getMessage()) for record in caplog.records) < 4096
    assert search(target, car_photo(0, 0), k=1)["nearest"]["score"] > 0.999


@tried(max_examples=150, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6), kept=st.floats(0, 1)
)
def test_a_damaged_photo_is_found_or_refused_and_never_a_failure(
    api_client: AppClient, edits: list[tuple[int, int]], kept: float
) -> None:
    photo = bytearray(car_photo())
    for place, value in edits:
        photo[place % len(photo)] = value
    damaged = bytes(photo[: max(1, round(len(photo) * kept))])
    response = api_client.post("/search", files={"file": damaged})
    if response.status_code != 200:
        assert response.json()["code"].startswith(("image_", "unsupported_image_format"))


def test_every_bad_request_is_counted_under_its_code(target: AppClient) -> None:
    series = 'carsearch_answers_total{code="image_degenerate",route="/search",status="422"}'
    before = metric(target, series)
    strip = next(bad for bad in BAD_REQUESTS if bad.code == "image_degenerate")
    target.request(strip.method, strip.path, **strip.arguments)
    assert metric(target, series) == before + 1


def test_an_image_path_that_a_client_resolves_upwards_leads_nowhere(target: AppClient) -> None:
    assert_problem(target.get("/gallery/../../../etc/passwd"), "not_found")


def test_a_method_that_is_not_allowed_is_told_which_are(target: AppClient) -> None:
    assert target.get("/search").headers["allow"] == "POST"
    assert target.post("/evaluations/0").headers["allow"] == "DELETE, GET"  # from two routes


def test_headers_that_mean_nothing_to_us_change_nothing(target: AppClient) -> None:
    headers = [
        (b"Authorization", b"Bearer caf\xe9"),
        (b"X-API-Key", b"\xff\xfe"),
        (b"X-Forwarded-For", b"127.0.0.1, <script>"),
        (b"Range", b"bytes=0-1,2-3"),
        (b"Host", b"elsewhere.invalid"),
        *((name.encode(), value.encode()) for name, value in FORM.items()),
    ]
    response = target.post("/search", content=form(car_photo(0, 0)), headers=headers)
    assert response.status_code == 200
    assert "elsewhere" not in response.text


def test_no_answer_allows_another_origin(target: AppClient) -> None:
    asking = {"Origin": "http://a.b", "Access-Control-Request-Method": "POST"}
    response = target.request("OPTIONS", "/search", headers=asking)
    assert not [name for name in response.headers if name.startswith("access-control-")]


def test_made_up_addresses_make_no_new_metric_series(target: AppClient) -> None:
    target.get("/first")
    target.get("/gallery/first/image")
    series = len(target.get("/metrics").text.splitlines())
    for number in range(50):
        assert target.get(f"/made/up/{number}").status_code == 404
        assert target.get(f"/gallery/{number}/image").status_code == 404
    assert len(target.get("/metrics").text.splitlines()) == series


# Failures of the server.


def test_an_error_with_text_that_utf_8_lacks_is_told_with_question_marks() -> None:
    context = RequestContext("a", RouteInfo(), "GET")
    told = json.loads(bytes(response_to(ImageUndecodable("The photo \udcff is damaged."), context).body))
    assert told["detail"] == "The photo ? is damaged."


def test_a_bug_is_told_without_its_inside_counted_and_logged_with_its_traceback(
    target: AppClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = metric(target, INTERNAL)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "query", lambda *_, **__: dict[str, str]()["a secret key"])
        failed = target.post("/search", files=PHOTO, headers={"X-Request-Id": "failing"})
    assert_problem(failed, "internal", "secret", "KeyError", "service")
    assert failed.headers["connection"] == "close"  # what state the server is in is not known
    assert metric(target, INTERNAL) == before + 1
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == "request failing failed"
    assert "KeyError: 'a secret key'" in caplog.text
    assert target.post("/search", files=PHOTO).status_code == 200


def test_a_failure_of_the_disk_is_internal_and_passes(
    fake_index: IndexDirectory, gallery: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with running_app(fake_index.root, datasets={"demo": gallery}, state_dir=state) as client:
        (state / "evaluations").rename(tmp_path / "aside")
        assert_problem(evaluate_named(client, "demo"), "internal", str(tmp_path))
        assert metric(client, 'carsearch_answers_total{code="internal",route="/evaluate",status="500"}') == 1
        (tmp_path / "aside").rename(state / "evaluations")
        assert evaluate_named(client, "demo").status_code == 200


@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), RuntimeError("can't start new thread")], ids=repr
)
def test_a_machine_that_is_out_of_something_is_told_as_overloaded(
    target: AppClient, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "query", fail)
        failed = target.post("/search", files=PHOTO)
    assert_problem(failed, "overloaded")
    assert target.post("/search", files=PHOTO).status_code == 200


def test_an_error_that_is_its_own_cause_is_answered_too(target: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milvus's client raises such ones: `raise e from e`."""

    def fail(*_: object, **__: object) -> None:
        gone = RuntimeError("no connection to 10.0.0.7")
        gone.__cause__ = gone
        raise StoreUnavailable("Milvus does not answer.") from gone

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "query", fail)
        failed = target.post("/search", files=PHOTO)
    assert_problem(failed, "backend_unavailable", "10.0.0.7")
    assert target.post("/search", files=PHOTO).status_code == 200


class Pixels:
    """Stands for the pixels of a photo, a hundred megabytes."""


@pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
def test_what_a_damaged_photo_took_is_free_when_it_is_refused_and_not_when_the_garbage_collector_comes(
    target: AppClient, gate: Gate, company: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[weakref.ref[Pixels]]()
    query = Engine.query

    def fail(engine: Engine, data: bytes, *rest: Any, **options: Any) -> object:
        if data == gate.photo:
            return query(engine, data, *rest, **options)
        pixels = Pixels()
        taken.append(weakref.ref(pixels))
        try:
            raise ValueError("broken")
        except ValueError as problem:
            raise ImageUndecodable("damaged") from problem

    monkeypatch.setattr(Engine, "query", fail)
    gc.disable()
    try:
        held = target.begin("POST", "/search", files={"file": gate.photo}) if company else None
        if held is not None:
            gate.wait_until_entered()
        for _ in range(3):
            assert_problem(target.post("/search", files=PHOTO), "image_undecodable")
        eventually(lambda: [pixels() for pixels in taken] == [None] * 3, "the pixels are free")
        gate.open()
        assert held is None or held.result().status_code == 200
    finally:
        gc.enable()
    assert at_work(target) == 0
