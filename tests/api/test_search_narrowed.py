"""What a search may be narrowed to: a lowest score, the best photo of each class, a box of the photo."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.engine import Engine
from tests.support.app import AppClient, running_app
from tests.support.calls import assert_problem, search
from tests.support.photos import car_photo, car_pixels, encoded, jpeg, write_gallery


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> Iterator[AppClient]:
    """26 classes: 60 photos of one car, and two photos of each of 25 others."""
    folder = tmp_path_factory.mktemp("crowded")
    write_gallery(folder / "gallery", classes=1, photos=60, first_kind=1)
    write_gallery(folder / "gallery", classes=25, photos=2, first_kind=2)
    build_index(folder / "gallery", IndexDirectory(folder / "index"), fake_embedder)
    with running_app(folder / "index") as client:
        yield client


def test_only_photos_with_the_lowest_score_come_back(api_client: AppClient) -> None:
    everything = search(api_client, car_photo(1, 99), k=12)
    third = everything["results"][2]["score"]
    some = search(api_client, car_photo(1, 99), k=12, min_score=third)
    assert some["results"] == everything["results"][:3]
    assert some["decision"] == everything["decision"]
    nothing = search(api_client, car_photo(1, 99), min_score=1)
    assert (nothing["nearest"], nothing["results"]) == (None, [])
    assert nothing["decision"] == everything["decision"]
    assert search(api_client, car_photo(1, 99), k=12, min_score=-1)["results"] == everything["results"]


@pytest.mark.parametrize("k", [1, 2, 5, 26, 100])
def test_the_best_photo_of_each_class_comes_back_for_k_classes(crowded: AppClient, k: int) -> None:
    photo = car_photo(1, 99)
    everything = Engine.load(IndexDirectory(crowded.state.settings.index_dir), runtime="fake")
    ranked = everything.search(photo, 100) + everything.search(photo, 100, [f"car {kind}" for kind in range(2, 27)])
    wanted: dict[str, tuple[str, float]] = {}
    for hit in sorted(ranked, key=lambda one: -one.score):
        wanted.setdefault(hit.label, (hit.id, hit.score))
    answer = search(crowded, photo, k=k, group="class")
    found = {hit["class"]: (hit["id"], hit["score"]) for hit in answer["results"]}
    assert list(found.items()) == list(wanted.items())[:k]
    assert [hit["rank"] for hit in answer["results"]] == list(range(1, min(k, 26) + 1))
    assert answer["decision"] == search(crowded, photo)["decision"]


def test_groups_among_some_classes_and_above_a_score(crowded: AppClient) -> None:
    photo = car_photo(1, 99)
    some = search(crowded, photo, k=100, group="class", **{"class": ["car 1", "car 7", "car 9"]})["results"]
    assert {hit["class"] for hit in some} == {"car 1", "car 7", "car 9"}
    lowest = some[1]["score"]
    above = search(crowded, photo, k=100, group="class", min_score=lowest)["results"]
    assert all(hit["score"] >= lowest for hit in above)
    assert above == search(crowded, photo, k=100, group="class")["results"][: len(above)]


def test_groups_like_a_photo_of_the_gallery_leave_it_out(crowded: AppClient) -> None:
    answer = crowded.post("/search?group=class&k=3", json={"id": "car 1/0.jpg"}).json()
    classes = [hit["class"] for hit in answer["results"]]
    assert (len(set(classes)), classes[0]) == (3, "car 1")
    assert answer["nearest"]["id"] != "car 1/0.jpg"


def test_equal_photos_of_several_classes_come_in_the_order_of_the_gallery(
    tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder
) -> None:
    folder = tmp_path_factory.mktemp("equal")
    for label in "cabd":
        (folder / "gallery" / label).mkdir(parents=True)
        for number in range(12):
            (folder / "gallery" / label / f"{number:02}.jpg").write_bytes(car_photo(1, 0))
    build_index(folder / "gallery", IndexDirectory(folder / "index"), fake_embedder)
    with running_app(folder / "index") as client:
        answer = search(client, car_photo(1, 0), k=3, group="class")
    assert [hit["id"] for hit in answer["results"]] == ["a/00.jpg", "b/00.jpg", "c/00.jpg"]


# A box.


def scene(exif: bytes = b"", format_: str = "PNG") -> bytes:
    """A grey picture of 300 x 200 pixels with the first car of the gallery at (150, 90)."""
    pixels = np.full((200, 300, 3), 128, np.uint8)
    pixels[90:162, 150:246] = car_pixels(1, 0)
    return encoded(Image.fromarray(pixels), format_, **({"exif": exif} if exif else {}))


def test_a_box_finds_the_car_that_it_holds(api_client: AppClient) -> None:
    whole = search(api_client, scene())["nearest"]
    boxed = search(api_client, scene(), box="150,90,96,72")["nearest"]
    assert boxed["id"] == "car 1/0.jpg"
    assert boxed["score"] > 0.99 > whole["score"]


def test_a_box_of_the_whole_photo_or_more_is_the_photo(api_client: AppClient) -> None:
    photo = car_photo(1, 99)
    for box in ("0,0,96,72", "-50,-50,500,500"):
        assert search(api_client, photo, box=box)["results"] == search(api_client, photo)["results"]


def test_a_box_is_of_the_upright_photo(api_client: AppClient) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # the picture in the file has to be turned by a quarter
    upright = Image.fromarray(car_pixels(1, 0, (200, 300)))
    file = encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=turned.tobytes())
    plain = encoded(upright, "PNG")
    for box in ("20,180,100,100", "0,250,64,50"):
        assert search(api_client, file, box=box)["results"] == search(api_client, plain, box=box)["results"]


def test_a_box_outside_of_the_photo_says_how_large_that_is(api_client: AppClient) -> None:
    refused = api_client.post("/search?box=90,0,64,64", files={"file": car_photo()})
    assert_problem(refused, "invalid_box")
    assert "96 x 72" in refused.json()["detail"]


def test_a_large_photo_is_searched_by_a_box_as_by_the_part_itself(api_client: AppClient) -> None:
    pixels = np.full((2400, 3200, 3), 90, np.uint8)
    pixels[800:1520, 1000:1960] = car_pixels(1, 0).repeat(10, axis=0).repeat(10, axis=1)
    found = search(api_client, jpeg(pixels), box="1000,800,960,720")["nearest"]
    assert found["id"] == "car 1/0.jpg"
    assert found["score"] > 0.98
