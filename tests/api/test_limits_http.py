"""What is too much: bodies too large or too slow, more searches than can be answered, answers that come too late."""

from collections import Counter
from collections.abc import Iterator

import pytest

from indexer.versions import IndexDirectory
from model.archive import ArchiveLimits
from service.http.limits import Limits
from tests.api.conftest import Gate
from tests.support.app import AppClient, running_app
from tests.support.bodies import FORM, form, zip_of
from tests.support.calls import assert_problem, at_work, evaluate, eventually, metric, search
from tests.support.photos import car_photo
from tests.support.ways import WAYS, upload_by

LIMIT = 300_000
LIMITS = Limits(
    archive_bytes=2 * LIMIT,
    archive=ArchiveLimits(entries=10),
    sync_photos=3,
)
PHOTO = {"file": ("photo.jpg", car_photo())}
OVERLOADED = 'carsearch_answers_total{code="overloaded",route="/search",status="429"}'
GONE = 'carsearch_answers_total{code="client_disconnected",route="/search",status="400"}'
FORWARD = 'carsearch_search_stage_seconds_count{stage="forward"}'


@pytest.fixture(scope="module")
def tight(fake_index: IndexDirectory) -> Iterator[AppClient]:
    """An application with little room: one search at a time, one waiting, small bodies."""
    with running_app(fake_index.root, limits=LIMITS, search_threads=1, max_queue=1, max_body_bytes=LIMIT) as client:
        yield client


@pytest.fixture(autouse=True)
def _unharmed(tight: AppClient) -> Iterator[None]:
    """Whatever was sent, the next search is answered."""
    yield
    eventually(lambda: at_work(tight) == 0, "nothing is left over")
    assert search(tight, car_photo(0, 0), k=1)["nearest"]["score"] > 0.999


# Size and time of a body.


@pytest.mark.parametrize("path", ["/search", "/evaluate"])
def test_a_body_that_declares_too_much_is_refused_before_it_is_read(tight: AppClient, path: str) -> None:
    for declared in (2 * LIMIT + 1, 10**12):
        upload = tight.exchange("POST", path, {**FORM, "Content-Length": str(declared), "Expect": "100-continue"})
        refused = upload.answer()
        assert_problem(refused, "payload_too_large")
        assert (upload.read_bytes, refused.headers["connection"]) == (0, "close")


@pytest.mark.parametrize(("path", "field", "limit"), [("/search", "file", LIMIT), ("/evaluate", "archive", 2 * LIMIT)])
def test_a_body_in_chunks_is_cut_off_at_the_limit(tight: AppClient, path: str, field: str, limit: int) -> None:
    body = form(bytes(limit + 50_000), field)
    upload = tight.exchange("POST", path, {**FORM, "Transfer-Encoding": "chunked"})
    for start in range(0, len(body), 10_000):
        upload.send(body[start : start + 10_000], more=True)
    assert_problem(upload.answer(), "payload_too_large")
    assert limit < upload.read_bytes <= limit + 10_000


def test_an_archive_may_be_larger_than_a_photo_but_json_may_not(tight: AppClient) -> None:
    padded = zip_of({"a/1.jpg": car_photo() + bytes(LIMIT), "a/2.jpg": car_photo(0, 1), "b/1.jpg": car_photo(1)})
    assert len(padded) > LIMIT
    assert evaluate(tight, padded).status_code == 200
    assert_problem(tight.post("/evaluate", json={"dataset": "x" * 5_000_000}), "payload_too_large")


def test_060_an_upload_that_stalls_is_told_so_and_cut_off(fake_index: IndexDirectory) -> None:
    with running_app(fake_index.root, limits=Limits(upload_deadline_s=0.1, batch_deadline_s=0.1)) as client:
        for way in WAYS:
            path, kind, body = upload_by(way, car_photo())
            stalled = client.exchange("POST", path, {"Content-Type": kind, "Content-Length": str(LIMIT)})
            stalled.send(body[:20], more=True)
            late = stalled.answer()
            assert_problem(late, "upload_timeout")
            assert late.headers["connection"] == "close"
        counted = 'carsearch_answers_total{{code="upload_timeout",route="{}",status="408"}}'
        assert [metric(client, counted.format(path)) for path in ("/search", "/search/batch")] == [3, 1]


@pytest.mark.parametrize("way", WAYS)
def test_065_a_client_that_goes_away_in_the_middle_harms_nobody(tight: AppClient, way: str) -> None:
    path, kind, body = upload_by(way, car_photo())
    gone = GONE.replace("/search", path)
    before = metric(tight, gone)
    for _ in range(5):
        cut = tight.exchange("POST", path, {"Content-Type": kind, "Content-Length": str(len(body))})
        cut.send(body[:500], more=True)
        cut.leave()
        assert cut.answer().status_code == 400
    assert metric(tight, gone) == before + 5


# Work places.


def test_a_search_for_which_no_place_is_free_is_refused_before_its_body_is_read(tight: AppClient, gate: Gate) -> None:
    before = metric(tight, OVERLOADED)
    held = [tight.begin("POST", "/search", files={"file": gate.photo}) for _ in range(2)]
    eventually(lambda: at_work(tight) == 2, "one is worked on, one waits")
    upload = tight.exchange("POST", "/search", {**FORM, "Content-Length": "1000"})
    refused = upload.answer()
    assert_problem(refused, "overloaded")
    assert (upload.read_bytes, int(refused.headers["retry-after"])) == (0, 1)
    assert "connection" not in refused.headers  # a body of this size is read and thrown away
    assert_problem(tight.get("/gallery/classes"), "overloaded")
    for path in ("/livez", "/readyz", "/metrics", "/info"):
        assert tight.get(path).status_code == 200
    assert metric(tight, OVERLOADED) == before + 1
    gate.open()
    assert [one.result().status_code for one in held] == [200, 200]


def test_slow_uploads_hold_no_work_place(tight: AppClient) -> None:
    body = form(car_photo())
    uploads = [tight.exchange("POST", "/search", FORM) for _ in range(20)]
    for upload in uploads:
        upload.send(body[:100], more=True)
    eventually(lambda: all(upload.read_bytes for upload in uploads), "all uploads have begun")
    assert at_work(tight) == 0
    assert tight.post("/search", files=PHOTO).status_code == 200
    uploads[0].send(body[100:])
    assert uploads[0].answer().status_code == 200
    for upload in uploads[1:]:
        upload.leave()
        upload.answer()


def test_uploads_that_are_complete_together_are_answered_or_refused_and_never_fail(tight: AppClient) -> None:
    asked = [tight.begin("POST", "/search", files=PHOTO) for _ in range(50)]
    answers = [one.result() for one in asked]
    for refused in (answer for answer in answers if answer.status_code != 200):
        assert_problem(refused, "overloaded")
    assert Counter(answer.status_code for answer in answers)[200] >= 1


def test_065_a_search_whose_client_has_gone_is_never_begun(tight: AppClient, gate: Gate) -> None:
    gone, forward = metric(tight, GONE), metric(tight, FORWARD)
    first = tight.begin("POST", "/search", files={"file": gate.photo})
    gate.wait_until_entered()
    body = form(car_photo())
    waiting = tight.exchange("POST", "/search", FORM)
    waiting.send(body)
    eventually(lambda: at_work(tight) == 2, "it waits")
    waiting.leave()
    assert waiting.answer().status_code == 400
    assert at_work(tight) == 1
    gate.open()
    assert first.result().status_code == 200
    assert (metric(tight, GONE), metric(tight, FORWARD)) == (gone + 1, forward + 1)


def test_an_answer_that_would_come_too_late_is_not_waited_for(fake_index: IndexDirectory, gate: Gate) -> None:
    with running_app(fake_index.root, request_deadline_s=0.2, search_threads=1) as client:
        held = client.begin("POST", "/search", files={"file": gate.photo})
        gate.wait_until_entered()
        late = client.post("/search", files=PHOTO), client.get("/gallery/classes"), held.result()
        for response in late:
            assert_problem(response, "deadline_exceeded")
            assert int(response.headers["retry-after"]) == 2
        assert at_work(client) == 0
        assert client.get("/readyz").status_code == 200
        gate.open()
        eventually(lambda: client.post("/search", files=PHOTO).status_code == 200, "a search is in time")


# Memory for uploads.


@pytest.fixture(scope="module")
def small(fake_index: IndexDirectory) -> Iterator[AppClient]:
    """An application with memory for 300 kB of uploads."""
    with running_app(fake_index.root, max_uploads_bytes=300_000) as client:
        yield client


def test_uploads_for_which_there_is_no_memory_are_refused_by_their_announcement(small: AppClient) -> None:
    body = form(bytes(250_000))
    announced = {**FORM, "Content-Length": str(len(body))}
    first = small.exchange("POST", "/search", announced)
    first.send(body[:1000], more=True)
    eventually(lambda: first.read_bytes > 0, "the first has its memory")
    second = small.exchange("POST", "/search", announced)
    assert_problem(second.answer(), "overloaded")
    assert second.read_bytes == 0
    first.leave()
    assert first.answer().status_code == 400
    third = small.exchange("POST", "/search", announced)
    third.send(body)
    assert_problem(third.answer(), "unsupported_image_format")  # of zeros; its memory is there again


def test_uploads_of_unknown_length_are_refused_when_the_memory_is_used_up(small: AppClient) -> None:
    uploads = [small.exchange("POST", "/search", FORM) for _ in range(2)]
    for upload in uploads:
        upload.send(form(bytes(140_000))[:140_000], more=True)
    eventually(lambda: all(upload.read_bytes for upload in uploads), "both have come")
    uploads[0].send(bytes(40_000), more=True)
    assert_problem(uploads[0].answer(), "overloaded")
    uploads[1].send(bytes(40_000), more=True)
    eventually(lambda: uploads[1].read_bytes == 180_000, "the other goes on")
    uploads[1].leave()
    uploads[1].answer()
    assert search(small, car_photo(1, 0))["nearest"]["class"] == "car 1"


# Sets to evaluate.


@pytest.mark.parametrize(("photos", "code"), [(4, "evaluation_too_large"), (11, "archive_too_large")])
def test_a_set_that_is_too_large_is_refused(tight: AppClient, photos: int, code: str) -> None:
    archive = zip_of({f"a/{number}.jpg": car_photo(0, number) for number in range(photos)})
    assert_problem(evaluate(tight, archive), code)


def test_a_set_too_large_to_wait_for_is_evaluated_in_the_background(tight: AppClient) -> None:
    archive = zip_of({f"{kind}/{shot}.jpg": car_photo(kind, shot) for kind in range(2) for shot in range(2)})
    begun = evaluate(tight, archive, background=True)
    assert begun.status_code == 202
    eventually(lambda: tight.get(begun.headers["location"]).json()["status"] == "done", "the evaluation is done")
