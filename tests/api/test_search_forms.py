"""Every way in which a photo may come to POST /search gives the same answer, within the same limits."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.http.body_limit import IN_JSON
from tests.support.app import AppClient, running_app
from tests.support.bodies import FORM, multipart, part
from tests.support.calls import assert_problem, metric, search
from tests.support.photos import KOREAN, car_photo, write_gallery

PHOTO = car_photo(1, 99)
LIMIT = 30_000


def told(answer: Any) -> Any:
    """An answer without what differs from search to search."""
    return {name: value for name, value in answer.json().items() if name != "timings_ms"}


def in_base64(data: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    "sent",
    [
        {"content": PHOTO, "headers": {"Content-Type": "image/jpeg"}},
        {"content": PHOTO, "headers": {"Content-Type": "IMAGE/PNG; q=1"}},
        {"content": PHOTO, "headers": {"Content-Type": "application/octet-stream"}},
        {"json": in_base64(PHOTO)},
        {"content": multipart(part(PHOTO, filename=None)), "headers": FORM},
        {
            "content": multipart(
                b"Content-Disposition: form-data; name=file; filename*=UTF-8''%EC.jpg\r\n\r\n" + PHOTO
            ),
            "headers": FORM,
        },
    ],
    ids=["raw", "raw, of another type", "raw, of no type", "base64", "a part without a name", "a name in filename*"],
)
def test_every_way_in_gives_the_answer_of_a_form(api_client: AppClient, sent: dict[str, Any]) -> None:
    wanted = api_client.post("/search?k=3", files={"file": ("a.jpg", PHOTO)})
    found = api_client.post("/search?k=3", **sent)
    assert found.status_code == wanted.status_code == 200
    assert told(found) == told(wanted)


def test_a_body_that_arrives_in_pieces_is_the_same_body(api_client: AppClient) -> None:
    upload = api_client.exchange("POST", "/search?k=3", {"Content-Type": "image/jpeg"})
    for start in range(0, len(PHOTO), 500):
        upload.send(PHOTO[start : start + 500], more=True)
    upload.send(b"")
    assert told(upload.answer()) == told(api_client.post("/search?k=3", files={"file": PHOTO}))


def test_an_address_is_not_fetched_and_the_answer_says_how_to(api_client: AppClient) -> None:
    for body in ({"url": "http://a.b/c.jpg"}, {"url": "http://a.b/c.jpg", **in_base64(PHOTO)}):
        refused = api_client.post("/search", json=body)
        assert_problem(refused, "invalid_request", "a.b")
        assert "curl URL | curl --data-binary @-" in refused.json()["detail"]


# The id of a photo of the gallery.


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> Iterator[AppClient]:
    """Two classes of three photos, and a copy of one of them in each class; the photos themselves are gone."""
    folder = tmp_path_factory.mktemp("copies")
    gallery = write_gallery(folder / "gallery", classes=2, photos=3, first_kind=1)
    for kind in (1, 2):
        (gallery / f"car {kind}" / "copy.jpg").write_bytes(car_photo(1, 0))
    build_index(gallery, IndexDirectory(folder / "index"), fake_embedder)
    gallery.rename(folder / "elsewhere")
    with running_app(folder / "index") as client:
        yield client


def test_an_id_finds_what_its_photo_finds_without_itself(copies: AppClient) -> None:
    by_photo = search(copies, car_photo(1, 0), k=8)["results"]
    found = copies.post("/search?k=8", json={"id": "car 1/0.jpg"}).json()
    hits = [(hit["id"], hit["score"]) for hit in found["results"]]
    assert hits == [(hit["id"], hit["score"]) for hit in by_photo if hit["id"] != "car 1/0.jpg"]
    assert [hit["rank"] for hit in found["results"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [identity for identity, score in hits if score > 0.999] == ["car 1/copy.jpg", "car 2/copy.jpg"]
    assert found["decision"]["class"] == "car 1"


def test_an_id_is_narrowed_as_a_photo_is(copies: AppClient) -> None:
    def found(query: str) -> list[str]:
        hits = copies.post(f"/search?{query}", json={"id": "car 1/0.jpg"}).json()["results"]
        return [hit["id"] for hit in hits]

    assert set(found("class=car 1&k=100")) == {"car 1/1.jpg", "car 1/2.jpg", "car 1/copy.jpg"}
    assert found("min_score=0.999") == ["car 1/copy.jpg", "car 2/copy.jpg"]
    assert found("group=class") == ["car 1/copy.jpg", "car 2/copy.jpg"]


def test_the_only_photo_of_a_gallery_is_like_no_other(tmp_path: Path, fake_embedder: Embedder) -> None:
    gallery = write_gallery(tmp_path / "gallery", classes=1, photos=1, first_kind=1)
    build_index(gallery, IndexDirectory(tmp_path / "index"), fake_embedder)
    with running_app(tmp_path / "index") as client:
        for query in ("", "?group=class"):
            answer = client.post(f"/search{query}", json={"id": "car 1/0.jpg"}).json()
            assert (answer["nearest"], answer["results"], answer["decision"]) == (None, [], None)


def test_many_ids_and_photos_at_once_get_their_own_answers(copies: AppClient) -> None:
    asked: list[dict[str, Any]] = [{"json": {"id": "car 2/1.jpg"}}, {"files": {"file": car_photo(1, 1)}}] * 20
    replies = [copies.begin("POST", "/search?k=1", **one) for one in asked]
    found = [reply.result().json()["results"][0]["id"] for reply in replies]
    alone = [copies.post("/search?k=1", **one).json()["results"][0]["id"] for one in asked[:2]]
    assert found == alone * 20


# Limits.


@pytest.fixture(scope="module")
def tight(fake_index: IndexDirectory) -> Iterator[AppClient]:
    """An application that takes photos of 30,000 bytes."""
    with running_app(fake_index.root, max_body_bytes=LIMIT) as client:
        yield client


def test_the_limit_is_the_photo_s_in_every_form(tight: AppClient) -> None:
    largest = car_photo(0, 0) + bytes(LIMIT - len(car_photo(0, 0)))
    for data, status in ((largest, 200), (largest + b"x", 413)):
        assert tight.post("/search", content=data, headers={"Content-Type": "image/jpeg"}).status_code == status
        assert tight.post("/search", json=in_base64(data)).status_code == status


def test_a_body_too_large_for_any_photo_is_refused_before_it_is_read(tight: AppClient) -> None:
    for kind, allowed in (("image/jpeg", LIMIT), ("application/json", int(LIMIT * IN_JSON))):
        upload = tight.exchange("POST", "/search", {"Content-Type": kind, "Content-Length": str(allowed + 1)})
        assert_problem(upload.answer(), "payload_too_large")
        assert upload.read_bytes == 0


def test_a_client_that_leaves_in_the_middle_of_a_body_is_counted(tight: AppClient) -> None:
    series = 'carsearch_answers_total{code="client_disconnected",route="/search",status="400"}'
    for number, kind in enumerate(("image/jpeg", "application/json"), 1):
        upload = tight.exchange("POST", "/search", {"Content-Type": kind, "Content-Length": "1000"})
        upload.send(b"{", more=True)
        upload.leave()
        assert upload.answer().status_code == 400
        assert metric(tight, series) == number


# Parameters that are none.


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("top_k=3", 'There is no query parameter "top_k"; did you mean "k"?'),
        ("k=3&LIMIT=3", 'There is no query parameter "LIMIT"; did you mean "k"?'),
        ("labels[]=a", 'There is no query parameter "labels[]"; did you mean "class"?'),
        ("threshold=0.5", 'There is no query parameter "threshold"; did you mean "min_score"?'),
        ("confidence=0.5", 'There is no query parameter "confidence"; did you mean "precision"?'),
        ("precison=0.5", 'There is no query parameter "precison"; did you mean "precision"?'),
        ("min-score=1", 'There is no query parameter "min-score"; did you mean "min_score"?'),
    ],
)
@pytest.mark.parametrize("path", ["/search", "/search/batch"])
def test_a_parameter_that_is_none_is_refused_with_the_one_that_is_near(
    api_client: AppClient, path: str, query: str, told: str
) -> None:
    refused = api_client.post(f"{path}?{query}", files={"file": PHOTO})
    assert_problem(refused, "unknown_parameter")
    assert refused.json()["detail"] == told


@pytest.mark.parametrize(("path", "more"), [("/search", ", explain"), ("/search/batch", "")])
@pytest.mark.parametrize(("name", "shown"), [("x", "x"), (quote(KOREAN + "<b>"), "????b?")])
def test_where_no_parameter_is_near_all_are_named(
    api_client: AppClient, path: str, more: str, name: str, shown: str
) -> None:
    refused = api_client.post(f"{path}?{name}=1", files={"file": PHOTO})
    known = f"there are: k, class, where, precision, min_score, group, box{more}."
    assert refused.json()["detail"] == f'There is no query parameter "{shown}"; {known}'


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/evaluate?k=1", 'There is no query parameter "k"; there are: mode, predictions, class_depth.'),
        ("/evaluate?prediction=true", 'There is no query parameter "prediction"; did you mean "predictions"?'),
    ],
)
def test_other_routes_name_their_own_parameters(api_client: AppClient, path: str, told: str) -> None:
    assert api_client.post(path, json={"dataset": "demo"}).json()["detail"] == told
    none = 'There is no query parameter "k"; this address takes none.'
    assert api_client.get("/gallery/classes?k=1").json()["detail"] == none


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/info", "/docs"])
def test_probes_are_answered_whatever_they_are_asked(api_client: AppClient, path: str) -> None:
    assert api_client.get(f"{path}?cache=1").status_code == 200


@pytest.mark.parametrize(
    ("path", "field", "told"),
    [
        ("/search", "k", "send it as a query parameter: /search?k=..."),
        ("/search", "top_k", "send it as a query parameter: /search?k=..."),
        ("/search", "token", "leave it out."),
        ("/search/batch", "class", "send it as a query parameter: /search/batch?class=..."),
        ("/evaluate", "mode", "send it as a query parameter: /evaluate?mode=..."),
    ],
)
def test_a_field_of_a_form_is_refused_with_the_parameter_that_it_should_be(
    api_client: AppClient, path: str, field: str, told: str
) -> None:
    for order in (1, -1):
        parts = [part(b"secret-7", field, None), part(PHOTO)][::order]
        refused = api_client.post(path, content=multipart(*parts), headers=FORM)
        assert_problem(refused, "unknown_parameter", "secret-7")
        assert refused.json()["detail"] == f'The form field "{field}" is not read; {told}'


def test_a_field_of_json_is_refused_too(api_client: AppClient) -> None:
    refused = api_client.post("/search", json={**in_base64(PHOTO), "limit": 3})
    assert refused.json()["detail"] == (
        'The JSON field "limit" is not read; send it as a query parameter: /search?k=...'
    )


def test_a_part_without_a_name_is_no_field(api_client: AppClient) -> None:
    nameless = b"Content-Type: text/plain\r\n\r\nhello"
    response = api_client.post("/search", content=multipart(nameless, part(PHOTO)), headers=FORM)
    assert response.status_code == 200
