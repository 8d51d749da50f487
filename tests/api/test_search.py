"""POST /search and the gallery: the right answer, whatever else is going on."""

import dataclasses
import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.build import build_index
from indexer.stores.faiss import FaissStore
from indexer.versions import IndexDirectory
from model.car_head import CarHead
from model.card import CAR_HEAD_NAME, load_card
from model.embedder import Embedder
from model.images import decode as decoding
from model.retrieval import exact_scores
from model.storage import FileRecord
from service.engine import Engine, Query
from service.http.schemas import SearchResponse
from tests.conftest import write_fake_model
from tests.support.app import AppClient, running_app
from tests.support.calls import search
from tests.support.photos import KOREAN, car_photo, car_pixels, encoded, flat_jpeg, heic, jpeg, write_gallery

KOREAN_ID = f"{KOREAN}/0.jpg"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> Iterator[tuple[AppClient, Path]]:
    """An application over 42 photos, and where they lie."""
    folder = tmp_path_factory.mktemp("wide")
    gallery = write_gallery(folder / "gallery", classes=7, photos=6)
    index = IndexDirectory(folder / "index")
    build_index(gallery, index, fake_embedder)
    with running_app(index.root) as client:
        yield client, gallery


def test_an_unseen_photo_finds_a_car_of_its_class(api_client: AppClient) -> None:
    answer = search(api_client, car_photo(1, 99))
    assert answer["nearest"] == answer["results"][0]
    assert [hit["class"] for hit in answer["results"][:4]] == ["car 1"] * 4
    assert [hit["rank"] for hit in answer["results"]] == [1, 2, 3, 4, 5]
    scores = [hit["score"] for hit in answer["results"]]
    assert scores == sorted(scores, reverse=True)


def test_a_photo_of_the_gallery_finds_itself_under_its_korean_id(api_client: AppClient) -> None:
    nearest = search(api_client, car_photo(0, 0))["nearest"]
    assert (nearest["id"], nearest["class"]) == (KOREAN_ID, KOREAN)
    assert nearest["score"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("k", "found"), [(1, 1), (3, 3), (12, 12), (13, 12), (100, 12)])
def test_k_is_how_many_photos_come_back_but_never_more_than_there_are(
    api_client: AppClient, k: int, found: int
) -> None:
    results = search(api_client, car_photo(2, 0), k=k)["results"]
    assert len({hit["id"] for hit in results}) == len(results) == found
    assert all(-1.001 <= hit["score"] <= 1 for hit in results)


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (["car 2"], {"car 2"}),
        (["car 2", KOREAN], {"car 2", KOREAN}),
        ([KOREAN], {KOREAN}),
        ([unicodedata.normalize("NFD", KOREAN)], {KOREAN}),
        (["car 2", "car 2"], {"car 2"}),
    ],
)
def test_a_class_filter_leaves_only_its_classes(api_client: AppClient, classes: list[str], found: set[str]) -> None:
    results = search(api_client, car_photo(1, 0), k=100, **{"class": classes})["results"]
    assert {hit["class"] for hit in results} == found
    assert len(results) == 4 * len(found)


def test_the_answer_names_its_versions_and_where_the_time_went(
    api_client: AppClient, fake_index: IndexDirectory
) -> None:
    answer = search(api_client, car_photo())
    manifest = fake_index.manifest(fake_index.current())
    assert answer["versions"] == {
        "index": manifest.id,
        "model": "fake",
        "model_sha256": manifest.model_sha256,
        "embedding_id": manifest.embedding_id,
    }
    assert answer["versions"] == api_client.get("/info").json()["versions"]
    assert answer["timings_ms"].keys() == {"queue", "decode", "forward", "search", "total"}
    assert min(answer["timings_ms"].values()) >= 0


def test_an_answer_is_what_the_document_says(api_client: AppClient) -> None:
    answer = search(api_client, car_photo(1, 0), k=3)
    assert SearchResponse.model_validate(answer).model_dump(by_alias=True, exclude_unset=True) == answer


def test_every_result_has_an_image_that_is_a_jpeg_and_need_not_be_sent_twice(api_client: AppClient) -> None:
    for hit in search(api_client, car_photo(), k=100)["results"]:
        image = api_client.get(hit["image"])
        assert image.status_code == 200
        assert image.content.startswith(b"\xff\xd8\xff")
        assert image.headers["content-type"] == "image/jpeg"
        assert image.headers["x-content-type-options"] == "nosniff"
        assert "no-cache" in image.headers["cache-control"]
        for known in (image.headers["etag"], f'"other", W/{image.headers["etag"]}'):
            again = api_client.get(hit["image"], headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")


def test_the_gallery_lists_its_classes_in_order(api_client: AppClient) -> None:
    classes = api_client.get("/gallery/classes").json()
    assert list(classes.items()) == [("car 1", 4), ("car 2", 4), (KOREAN, 4)]


@pytest.fixture
def phone(tmp_path: Path, fake_embedder: Embedder) -> Iterator[AppClient]:
    """An application over photos as phones keep them: a HEIC, an AVIF, and a JPEG of 108 megapixels."""
    picture = Image.fromarray(car_pixels(1, 0))
    photos = {"heic": heic(picture), "avif": encoded(picture, "AVIF"), "large": flat_jpeg(12_000, 9000)}
    for name, data in photos.items():
        (tmp_path / "gallery" / name).mkdir(parents=True)
        (tmp_path / "gallery" / name / "IMG_1").write_bytes(data)
    build_index(tmp_path / "gallery", IndexDirectory(tmp_path / "index"), fake_embedder)
    with running_app(tmp_path / "index") as client:
        yield client


def test_photos_of_phones_are_found_and_shown(phone: AppClient) -> None:
    picture = Image.fromarray(car_pixels(1, 0))
    photos = {"heic": heic(picture), "avif": encoded(picture, "AVIF"), "large": flat_jpeg(12_000, 9000)}
    shown = {"heic": (96, 72), "avif": (96, 72), "large": (1024, 768)}
    for name, data in photos.items():
        nearest = search(phone, data)["nearest"]
        assert (nearest["class"], nearest["score"]) == (name, pytest.approx(1, abs=1e-6))
        with Image.open(io.BytesIO(phone.get(nearest["image"]).content)) as image:
            assert (image.format, image.size) == ("JPEG", shown[name])


def test_without_the_extra_a_heic_of_the_gallery_is_unknown_and_the_log_says_once_what_to_install(
    phone: AppClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decoding, "pillow_heif", None)
    for _ in range(2):
        problem = phone.get("/gallery/heic/IMG_1/image")
        assert (problem.status_code, problem.json()["code"]) == (404, "unknown_item")
        assert problem.json()["detail"] == "The photo is of a kind that this server cannot show."
    assert caplog.text.count("cannot be shown: The file is a HEIC photo; install carsearch[heif]") == 1


def test_the_head_of_an_image_is_answered(api_client: AppClient) -> None:
    path = search(api_client, car_photo(0, 0))["nearest"]["image"]
    head, image = api_client.request("HEAD", path), api_client.get(path)
    names = ("etag", "content-type", "content-length")
    assert (head.status_code, *map(head.headers.get, names)) == (200, *map(image.headers.get, names))
    assert api_client.request("HEAD", "/gallery/none/image").status_code == 404


@pytest.mark.parametrize("declared", ["text/plain", "image/png", "application/octet-stream"])
def test_the_declared_type_of_a_photo_does_not_matter(api_client: AppClient, declared: str) -> None:
    response = api_client.post("/search", files={"file": ("a.txt", car_photo(0, 0), declared)})
    assert response.json()["nearest"]["id"] == KOREAN_ID


@pytest.mark.parametrize("name", ["아반떼.jpg", "../../etc/passwd", "x" * 4000, "a b;c.jpg", "\u202egpj.exe"])
def test_the_name_of_an_upload_does_not_matter(
    api_client: AppClient, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    response = api_client.post("/search", files={"file": (name, car_photo(0, 0))})
    assert response.json()["nearest"]["id"] == KOREAN_ID
    assert "passwd" not in caplog.text


def test_over_http_the_answer_is_the_library_s(api_client: AppClient, fake_index: IndexDirectory) -> None:
    photo = car_photo(1, 50)
    hits = Engine.load(fake_index, runtime="fake").search(photo, 12)
    answer = search(api_client, photo, k=12)
    told = [(hit["rank"], hit["id"], hit["class"], hit["score"]) for hit in answer["results"]]
    assert told == [(hit.rank, hit.id, hit.label, hit.score) for hit in hits]


def test_087_answers_are_never_crossed_between_concurrent_clients(wide: tuple[AppClient, Path]) -> None:
    client, gallery = wide
    photos = sorted(path for path in gallery.rglob("*.jpg"))
    replies = [client.begin("POST", "/search", files={"file": path.read_bytes()}) for path in photos]
    found = [reply.result().json()["nearest"]["id"] for reply in replies]
    assert found == [path.relative_to(gallery).as_posix() for path in photos]


def test_a_photo_that_is_deleted_is_still_found_but_has_no_image(wide: tuple[AppClient, Path]) -> None:
    client, gallery = wide
    doomed = gallery / "car 6" / "5.jpg"
    photo = doomed.read_bytes()
    doomed.unlink()
    nearest = search(client, photo)["nearest"]
    assert nearest["id"] == "car 6/5.jpg"
    assert client.get(nearest["image"]).json()["code"] == "unknown_item"


def test_a_photo_that_was_changed_since_it_was_indexed_is_not_shown_for_the_old_one(
    wide: tuple[AppClient, Path],
) -> None:
    client, gallery = wide
    nearest = search(client, (gallery / "car 5" / "5.jpg").read_bytes())["nearest"]
    etag = client.get(nearest["image"]).headers["etag"]
    (gallery / "car 5" / "5.jpg").write_bytes(car_photo(40))
    for headers in ({}, {"If-None-Match": etag}):
        assert client.get(nearest["image"], headers=headers).json()["code"] == "unknown_item"


def test_real_photos_find_themselves(cars: Path, tmp_path: Path, fake_embedder: Embedder) -> None:
    folders = sorted(path for path in (cars / "val").iterdir() if path.is_dir())[:3]
    manifest = tmp_path / "some.csv"
    photos = [path for folder in folders for path in sorted(folder.iterdir())[:5]]
    manifest.write_text("path,class\n" + "".join(f'"{path}","{path.parent.name}"\n' for path in photos))
    build_index(manifest, IndexDirectory(tmp_path / "index"), fake_embedder)
    engine = Engine.load(IndexDirectory(tmp_path / "index"), runtime="fake")
    for path in photos:
        assert engine.search(path.read_bytes(), 1)[0].score == pytest.approx(1, abs=1e-6)


def test_the_answer_names_the_class_and_how_sure_it_is_whatever_k_is(api_client: AppClient) -> None:
    one, all_ = (search(api_client, car_photo(1, 99), k=k)["decision"] for k in (1, 12))
    assert one == all_
    assert set(one) == {"outcome", "class", "probability", "agreement", "car_probability"}
    assert one["car_probability"] is None  # this model has no car head
    assert one["class"] == "car 1"
    assert 0 < one["probability"] < 1
    assert one["agreement"] == 0.4  # all four photos of the class are among the ten nearest


def test_a_class_is_named_where_it_is_right_as_often_as_wanted(api_client: AppClient) -> None:
    """Without a fit of its own an index names a class from the wanted precision itself on."""
    outcomes = set()
    for kind in range(3, 13):  # cars of which the gallery has none
        for precision in (0.5, 0.99):
            told = search(api_client, car_photo(kind, 0), precision=precision)["decision"]
            assert told["outcome"] == ("class" if told["probability"] >= precision else "unsure")
            outcomes.add(told["outcome"])
    assert outcomes == {"class", "unsure"}
    assert api_client.post("/search?precision=1.5", files={"file": car_photo()}).status_code == 422


def test_a_picture_that_is_no_car_is_told(gallery: Path, tmp_path: Path) -> None:
    """The head is fitted to cars, and to noise instead of other pictures."""
    model = write_fake_model(tmp_path / "model")
    embedder = Embedder.load(model, "fake")
    cars = np.stack([embedder.embed_photo(car_photo(kind, view)) for kind in range(10) for view in range(5)])
    head = CarHead.fit(cars, np.stack([embedder.embed_photo(noise(seed)) for seed in range(50)]))
    head.write(model / CAR_HEAD_NAME)
    card = load_card(model)
    files = {**card.files, CAR_HEAD_NAME: FileRecord.of(model / CAR_HEAD_NAME)}
    dataclasses.replace(card, files=files).save(model)
    build_index(gallery, IndexDirectory(tmp_path / "index"), Embedder.load(model, "fake"))
    with running_app(tmp_path / "index") as client:
        car, other = (search(client, photo)["decision"] for photo in (car_photo(1, 99), noise(99)))
    assert car["outcome"] != "not_a_car"
    assert car["car_probability"] > 0.5 > other["car_probability"]
    assert other["outcome"] == "not_a_car"


def noise(seed: int) -> bytes:
    return jpeg(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8))


def test_among_some_classes_only_there_is_no_decision(api_client: AppClient) -> None:
    assert search(api_client, car_photo(1, 99), **{"class": ["car 1"]})["decision"] is None


def test_no_score_is_above_1_and_the_order_is_that_of_the_exact_cosines(fake_index: IndexDirectory) -> None:
    """Rows in float32 are of length 1 but for rounding: some are a little longer."""
    engine = Engine.load(fake_index, runtime="fake")
    rows = np.random.default_rng(4).normal(size=(len(engine.store), engine.store.dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[1] = rows[0]
    own = exact_scores(rows, rows[:, None])[:, 0]
    assert (own > 1).any()
    assert (own < 1).any()
    engine = dataclasses.replace(engine, store=FaissStore.create(rows), decider=None)
    queries = [Query(np.zeros((32, 32, 3), np.uint8), 3, None) for _ in rows]
    found = [one.hits for one in engine.nearest(rows, queries)]
    assert [hits[0].score for hits in found] == np.minimum(own, 1).tolist()
    wanted = engine.store.search(rows, 3).rows
    assert [[hit.id for hit in hits] for hits in found] == [
        [engine.names.at(row)[0] for row in near] for near in wanted
    ]
    assert found[0][0].id == found[1][0].id  # of equals the first
