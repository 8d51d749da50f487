"""POST /search/batch: photos of one form, in their order, each with its own result or problem."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from indexer.versions import IndexDirectory
from service.http.limits import Limits
from service.http.schemas import BatchResponse, Problem
from tests.api.conftest import Gate
from tests.support.app import AppClient, running_app
from tests.support.bodies import FORM, multipart, part
from tests.support.calls import assert_problem, at_work, eventually, metric, search
from tests.support.photos import car_photo

LIMIT = 100_000
BATCH = 400_000


def send(client: AppClient, *parts: bytes, query: str = "") -> list[dict[str, Any]]:
    """The entries of a batch that must succeed."""
    response = client.post(f"/search/batch{query}", content=multipart(*parts), headers=FORM)
    assert response.status_code == 200, response.text
    entries: list[dict[str, Any]] = response.json()["results"]
    return entries


def codes(entries: list[dict[str, Any]]) -> list[str]:
    return ["ok" if "result" in entry else entry["problem"]["code"] for entry in entries]


@pytest.fixture(scope="module")
def tight(fake_index: IndexDirectory) -> Iterator[AppClient]:
    """An application with one thread and one place to wait, for photos of 100 kB and batches of 400 kB."""
    limits = Limits(batch_bytes=BATCH)
    with running_app(fake_index.root, limits=limits, search_threads=1, max_queue=1, max_body_bytes=LIMIT) as client:
        yield client


def test_each_photo_of_a_batch_gets_the_answer_that_it_gets_alone(api_client: AppClient) -> None:
    photos = [car_photo(kind, 99) for kind in (2, 0, 1, 2)]
    entries = send(api_client, *[part(photo, filename=f"{n}.jpg") for n, photo in enumerate(photos)], query="?k=3")
    assert [entry["name"] for entry in entries] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    for photo, entry in zip(photos, entries, strict=True):
        alone = search(api_client, photo, k=3)
        for answer in (alone, entry["result"]):
            assert answer.pop("timings_ms")["total"] > 0
        assert entry["result"] == alone


def test_an_answer_is_what_the_document_says(api_client: AppClient) -> None:
    answer = api_client.post("/search/batch", content=multipart(part(car_photo()), part(b"x")), headers=FORM).json()
    assert BatchResponse.model_validate(answer).model_dump(by_alias=True, exclude_unset=True) == answer


def test_a_photo_that_cannot_be_used_has_its_own_problem_and_is_counted(tight: AppClient) -> None:
    counted = 'carsearch_batch_answers_total{{code="{}"}}'
    before = metric(tight, counted.format("ok"))
    entries = send(
        tight,
        part(car_photo(1, 0)),
        part(b""),
        part(b"text"),
        part(car_photo()[:900]),
        part(car_photo(1, 0) + bytes(LIMIT)),
        part(car_photo(2, 0)),
        query="?k=1",
    )
    wanted = ["ok", "empty_file", "unsupported_image_format", "image_undecodable", "payload_too_large", "ok"]
    assert codes(entries) == wanted
    assert [entries[place]["result"]["nearest"]["class"] for place in (0, 5)] == ["car 1", "car 2"]
    assert metric(tight, counted.format("ok")) == before + 2
    assert metric(tight, counted.format("payload_too_large")) == 1
    for entry in entries[1:5]:
        assert entry["problem"].keys() == Problem.model_fields.keys()


def test_names_come_back_as_they_were_sent(api_client: AppClient) -> None:
    photo = car_photo()
    extended = b"Content-Disposition: form-data; name=file; filename*=UTF-8''%EC%95%84.jpg\r\n\r\n" + photo
    parts = [part(photo, filename="a.jpg"), part(photo, filename="a.jpg"), part(photo, filename="아반떼.jpg")]
    entries = send(api_client, *parts, part(photo, filename=None), extended, part(photo, filename=""), query="?k=1")
    assert [entry["name"] for entry in entries] == ["a.jpg", "a.jpg", "아반떼.jpg", None, "아.jpg", ""]


def test_a_batch_takes_the_parameters_of_a_search(api_client: AppClient) -> None:
    query = "?k=2&class=car%202&min_score=-1&group=class&precision=0.5&box=0,0,64,64"
    one, two = send(api_client, part(car_photo(1, 0)), part(car_photo(2, 0)), query=query)
    for entry in (one, two):
        assert [hit["class"] for hit in entry["result"]["results"]] == ["car 2"]
    outside = send(api_client, part(car_photo(size=(40, 40))), part(car_photo()), query="?box=40,0,40,40")
    assert codes(outside) == ["invalid_box", "ok"]


def test_64_photos_are_answered_with_few_threads_and_places(tight: AppClient) -> None:
    entries = send(tight, *[part(car_photo(kind % 3, 0)) for kind in range(64)], query="?k=1")
    assert [entry["result"]["nearest"]["score"] > 0.999 for entry in entries] == [True] * 64
    assert at_work(tight) == 0


def test_a_batch_holds_one_place_a_thread_and_lone_searches_come_between(tight: AppClient, gate: Gate) -> None:
    body = multipart(*[part(gate.photo)] * 3)
    batch = tight.begin("POST", "/search/batch?k=1", content=body, headers=FORM)
    gate.wait_until_entered()
    assert at_work(tight) == 1
    lone = tight.begin("POST", "/search?k=1", files={"file": car_photo(1, 0)})
    eventually(lambda: at_work(tight) == 2, "the lone search waits for the first photo of the batch")
    gate.open()
    assert lone.result().status_code == 200
    assert set(codes(batch.result().json()["results"])) <= {"ok", "overloaded"}


def test_a_photo_for_which_no_place_is_free_is_told_so_and_the_others_are_answered(
    tight: AppClient, gate: Gate
) -> None:
    upload = tight.exchange("POST", "/search/batch", FORM)
    body = multipart(part(car_photo(1, 0)), part(car_photo(2, 0)))
    upload.send(body[:100], more=True)  # let in while there are places
    eventually(lambda: upload.read_bytes > 0, "the batch is being received")
    held = [tight.begin("POST", "/search", files={"file": gate.photo}) for _ in range(2)]
    eventually(lambda: at_work(tight) == 2, "one is worked on, one waits")
    upload.send(body[100:])
    assert codes(upload.answer().json()["results"]) == ["overloaded", "overloaded"]
    gate.open()
    assert [one.result().status_code for one in held] == [200, 200]
    refused = 'carsearch_answers_total{code="ok",route="/search/batch",status="200"}'
    assert metric(tight, refused) >= 1


def test_a_batch_without_a_free_place_is_refused_before_its_body_is_read(tight: AppClient, gate: Gate) -> None:
    held = [tight.begin("POST", "/search", files={"file": gate.photo}) for _ in range(2)]
    eventually(lambda: at_work(tight) == 2, "one is worked on, one waits")
    upload = tight.exchange("POST", "/search/batch", {**FORM, "Content-Length": "1000"})
    assert_problem(upload.answer(), "overloaded")
    assert upload.read_bytes == 0
    gate.open()
    assert [one.result().status_code for one in held] == [200, 200]


def test_a_batch_may_be_as_large_as_its_limit_and_no_larger(tight: AppClient) -> None:
    photo = part(car_photo() + bytes(LIMIT - 10_000))
    assert len(multipart(*[photo] * 4)) <= BATCH < len(multipart(*[photo] * 5))
    assert codes(send(tight, *[photo] * 4)) == ["ok"] * 4
    refused = tight.post("/search/batch", content=multipart(*[photo] * 5), headers=FORM)
    assert_problem(refused, "payload_too_large")
    raw = tight.exchange("POST", "/search/batch", {"Content-Type": "image/jpeg", "Content-Length": str(LIMIT + 1)})
    assert_problem(raw.answer(), "payload_too_large")


def test_a_batch_for_which_there_is_no_memory_is_refused_by_its_announcement(fake_index: IndexDirectory) -> None:
    with running_app(fake_index.root, max_uploads_bytes=100_000) as client:
        upload = client.exchange("POST", "/search/batch", {**FORM, "Content-Length": "200000"})
        assert_problem(upload.answer(), "overloaded")
        assert codes(send(client, part(car_photo()))) == ["ok"]


def test_photos_that_a_batch_has_no_time_for_are_told_so(fake_index: IndexDirectory, gate: Gate) -> None:
    with running_app(fake_index.root, limits=Limits(batch_deadline_s=0.3), search_threads=1) as client:
        entries = send(client, part(car_photo(1, 0)), part(gate.photo), part(car_photo(2, 0)))
        assert codes(entries) == ["ok", "deadline_exceeded", "deadline_exceeded"]
        gate.open()
        eventually(lambda: at_work(client) == 0, "nothing is left over")


def test_a_batch_whose_client_has_gone_is_not_gone_on_with(tight: AppClient, gate: Gate) -> None:
    series = 'carsearch_answers_total{code="client_disconnected",route="/search/batch",status="400"}'
    forward = 'carsearch_search_stage_seconds_count{stage="forward"}'
    before = metric(tight, forward)
    upload = tight.exchange("POST", "/search/batch", FORM)
    upload.send(multipart(part(gate.photo), *[part(car_photo())] * 5))
    gate.wait_until_entered()
    upload.leave()
    assert upload.answer().status_code == 400
    gate.open()
    eventually(lambda: at_work(tight) == 0, "nothing is left over")
    assert (metric(tight, series), metric(tight, forward)) == (1, before)


def test_a_client_that_sends_no_end_of_its_batch_is_refused(tight: AppClient) -> None:
    refused: httpx.Response = tight.post(
        "/search/batch", content=multipart(part(car_photo()), closed=False), headers=FORM
    )
    assert_problem(refused, "malformed_multipart")
