"""Metadata over HTTP and in Python: filtered searches, GET /gallery, and hits with their cells."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import carsearch
from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.http.schemas import GalleryPage, SearchResponse
from tests.support.app import AppClient, running_app
from tests.support.calls import assert_problem, search
from tests.support.photos import KOREAN, car_photo, write_gallery

CLASSES, SHOTS = 5, 8
PHOTOS = [f"{KOREAN if kind == 0 else f'car {kind}'}/{shot}.jpg" for kind in range(CLASSES) for shot in range(SHOTS)]
ROWS = {
    name: (1000 * (number % SHOTS), f"20{10 + number // SHOTS}-06-01", "red" if number % 2 else "")
    for number, name in enumerate(PHOTOS)
    if number != 39
}
"""Price, date and colour of every photo but the last: a price for each shot, a year for each class."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> Path:
    folder = tmp_path_factory.mktemp("filters")
    gallery = write_gallery(folder / "gallery", classes=CLASSES, photos=SHOTS)
    rows = "\n".join(
        f"{name.replace('/', chr(92))};{price};{day};{colour}" for name, (price, day, colour) in ROWS.items()
    )
    (gallery / "photos.csv").write_text(f"File;Price;First seen;Colour\n{rows}\n;;;\n")
    build_index(gallery, IndexDirectory(folder / "index"), fake_embedder, strict=True)
    return folder / "index"


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[AppClient]:
    with running_app(index) as running:
        yield running


def page(client: AppClient, **query: Any) -> dict[str, Any]:
    response = client.get("/gallery", params=query)
    assert response.status_code == 200, response.text
    GalleryPage.model_validate(response.json())
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize(
    ("where", "classes", "found"),
    [
        ("price < 3000", [], 15),
        ("price < 3000 and first_seen >= 2013-01-01", [], 6),
        ("price = 7000", [], 4),
        ("price = 7000", ["car 1"], 1),
        ("price = 7000", ["car 4"], 0),
        ("price > 7000", [], 0),
        ("not colour = 'red'", [], 0),
        ("colour = 'red' or price = 0", ["car 1", KOREAN], 10),
    ],
)
def test_a_filtered_search_finds_every_photo_that_passes_however_few(
    client: AppClient, where: str, classes: list[str], found: int
) -> None:
    answer = search(client, car_photo(1, 99), k=100, where=where, **{"class": classes})
    SearchResponse.model_validate(answer)
    assert len(answer["results"]) == found == page(client, where=where, **{"class": classes})["total"]
    assert answer["decision"] is None
    assert (answer["nearest"] is None) == (found == 0)
    scores = [hit["score"] for hit in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    if not classes:
        whole = search(client, car_photo(1, 99), k=100)["results"]
        expected = {hit["id"] for hit in page(client, where=where, limit=200)["photos"]}
        assert [hit["id"] for hit in answer["results"]] == [hit["id"] for hit in whole if hit["id"] in expected]


def test_hits_carry_their_cells(client: AppClient) -> None:
    results = search(client, car_photo(4, 99), k=40)["results"]
    cells = {hit["id"]: hit["metadata"] for hit in results}
    assert cells["car 1/3.jpg"] == {"price": 3000, "first_seen": "2011-06-01", "colour": "red"}
    assert cells["car 1/2.jpg"] == {"price": 2000, "first_seen": "2011-06-01"}
    assert cells["car 4/7.jpg"] == {}
    assert len(cells) == 40


def test_a_gallery_without_metadata_has_hits_without_cells(api_client: AppClient) -> None:
    assert all(hit["metadata"] == {} for hit in search(api_client, car_photo(1, 99))["results"])
    assert api_client.get("/info").json()["metadata"] == {}
    assert page(api_client, limit=1)["photos"][0]["metadata"] == {}


def test_info_tells_the_columns(client: AppClient) -> None:
    assert client.get("/info").json()["metadata"] == {"price": "number", "first_seen": "date", "colour": "text"}


@pytest.mark.parametrize("limit", [1, 7, 40, 200])
def test_pages_give_every_photo_once_and_in_order(client: AppClient, limit: int) -> None:
    seen: list[str] = []
    after: int | None = -1
    while after is not None:
        one = page(client, limit=limit, after=after)
        assert one["total"] == 40
        seen += [photo["id"] for photo in one["photos"]]
        after = one["next"]
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen) == 40


def test_a_page_may_be_filtered_and_its_pictures_are_there(client: AppClient) -> None:
    first = page(client, where="price >= 6000", limit=4, **{"class": ["car 2", "car 3"]})
    last = first["photos"][-1]
    assert last == {
        "id": "car 3/7.jpg",
        "class": "car 3",
        "image": "/gallery/car%203/7.jpg/image",
        "metadata": {"price": 7000, "first_seen": "2013-06-01", "colour": "red"},
    }
    assert (first["total"], first["next"]) == (4, None)
    assert client.get(last["image"]).headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize("after", [39, 40, 2**63 - 1])
def test_behind_the_last_photo_there_is_an_empty_page(client: AppClient, after: int) -> None:
    assert page(client, after=after) == {"photos": [], "next": None, "total": 40}


@pytest.mark.parametrize(
    "where",
    [
        "",
        "price",
        "prise < 5",
        "price < 'x'",
        "price < 1e999",
        "(" * 400,
        "a" * 2_000,
        "'",
        "\0",
        "not " * 60 + "price<1",
    ],
)
def test_a_filter_that_cannot_be_used_is_refused(client: AppClient, where: str) -> None:
    assert_problem(client.get("/gallery", params={"where": where}), "invalid_filter")
    upload = {"file": ("photo.jpg", car_photo())}
    assert_problem(client.post("/search", params={"where": where}, files=upload), "invalid_filter")


def test_the_python_api_filters_too(index: Path) -> None:
    engine = carsearch.open_index(index, runtime="fake")
    hits = engine.search(car_photo(1, 99), k=10, classes=["car 1"], where="price <= 1000")
    assert {(hit.id, hit.metadata["price"]) for hit in hits} == {("car 1/0.jpg", 0), ("car 1/1.jpg", 1000)}
    with pytest.raises(carsearch.CarsearchError, match="did you mean price"):
        engine.search(car_photo(), where="prices < 5")


def test_searches_with_and_without_a_filter_may_wait_together(client: AppClient) -> None:
    upload = {"file": ("photo.jpg", car_photo(1, 99))}
    asked = ["", "?where=price%3D7000", "?where=price%3C1000&k=100", "?class=car%202&where=price%3E6000"] * 4
    begun = [client.begin("POST", f"/search{query}", files=upload) for query in asked]
    assert [len(one.result().json()["results"]) for one in begun] == [5, 4, 5, 1] * 4
