"""POST /search and the gallery: the right answer, the same through every door, whatever else is going on."""

import json
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.engine import Engine
from tests.support.calls import search
from tests.support.photos import KOREAN, car_photo, write_gallery
from tests.support.servers import Server, run_cli, running_server

KOREAN_ID = f"{quote(KOREAN)}/0.jpg"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, real_embedder: Embedder) -> Iterator[tuple[Server, Path]]:
    """A server over 42 photos, and where they lie."""
    folder = tmp_path_factory.mktemp("wide")
    gallery = write_gallery(folder / "gallery", classes=7, photos=6)
    index = IndexDirectory(folder / "index")
    build_index(gallery, index, real_embedder)
    with running_server(index.root, folder / "log") as server:
        yield server, gallery


def test_an_unseen_photo_finds_a_car_of_its_class(server: Server) -> None:
    answer = search(server, car_photo(1, 99))
    assert answer["nearest"] == answer["results"][0]
    assert [hit["class"] for hit in answer["results"][:4]] == ["car 1"] * 4
    assert [hit["rank"] for hit in answer["results"]] == [1, 2, 3, 4, 5]
    scores = [hit["score"] for hit in answer["results"]]
    assert scores == sorted(scores, reverse=True)


def test_a_photo_of_the_gallery_finds_itself_under_its_korean_id(server: Server) -> None:
    nearest = search(server, car_photo(0, 0))["nearest"]
    assert (nearest["id"], nearest["class"]) == (KOREAN_ID, KOREAN)
    assert nearest["score"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("k", "found"), [(1, 1), (3, 3), (12, 12), (13, 12), (100, 12)])
def test_k_is_how_many_photos_come_back_but_never_more_than_there_are(server: Server, k: int, found: int) -> None:
    results = search(server, car_photo(2, 0), k=k)["results"]
    assert len({hit["id"] for hit in results}) == len(results) == found
    assert all(-1.001 <= hit["score"] <= 1.001 for hit in results)


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
def test_a_class_filter_leaves_only_its_classes(server: Server, classes: list[str], found: set[str]) -> None:
    results = search(server, car_photo(1, 0), k=100, **{"class": classes})["results"]
    assert {hit["class"] for hit in results} == found
    assert len(results) == 4 * len(found)


def test_the_answer_names_its_versions_and_where_the_time_went(server: Server, real_index: IndexDirectory) -> None:
    answer = search(server, car_photo())
    manifest = real_index.manifest(real_index.current())
    assert answer["versions"] == {
        "index": manifest.id,
        "model": "tiny",
        "model_sha256": manifest.model_sha256,
        "embedding_id": manifest.embedding_id,
    }
    assert answer["versions"] == server.client.get("/info").json()["versions"]
    assert answer["timings_ms"].keys() == {"queue", "decode", "forward", "search", "total"}
    assert min(answer["timings_ms"].values()) >= 0


def test_every_result_has_an_image_that_is_a_jpeg_and_need_not_be_sent_twice(server: Server) -> None:
    for hit in search(server, car_photo(), k=100)["results"]:
        image = server.client.get(hit["image"])
        assert image.status_code == 200
        assert image.content.startswith(b"\xff\xd8\xff")
        assert image.headers["content-type"] == "image/jpeg"
        assert image.headers["x-content-type-options"] == "nosniff"
        assert "no-cache" in image.headers["cache-control"]
        for known in (image.headers["etag"], f'"other", W/{image.headers["etag"]}'):
            again = server.client.get(hit["image"], headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")


def test_the_gallery_lists_its_classes_in_order(server: Server) -> None:
    classes = server.client.get("/gallery/classes").json()
    assert list(classes.items()) == [("car 1", 4), ("car 2", 4), (KOREAN, 4)]


@pytest.mark.parametrize("declared", ["text/plain", "image/png", "application/octet-stream"])
def test_the_declared_type_of_a_photo_does_not_matter(server: Server, declared: str) -> None:
    response = server.client.post("/search", files={"file": ("a.txt", car_photo(0, 0), declared)})
    assert response.json()["nearest"]["id"] == KOREAN_ID


@pytest.mark.parametrize("name", ["아반떼.jpg", "../../etc/passwd", "x" * 4000, "a b;c.jpg", "\u202egpj.exe"])
def test_the_name_of_an_upload_does_not_matter(server: Server, name: str) -> None:
    response = server.client.post("/search", files={"file": (name, car_photo(0, 0))})
    assert response.json()["nearest"]["id"] == KOREAN_ID
    assert "passwd" not in server.log


def test_http_command_line_and_library_give_the_same_bits(
    server: Server, real_index: IndexDirectory, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(car_photo(1, 50))
    over_http = search(server, photo.read_bytes(), k=12)
    for where in (("--index", real_index.root), ("--url", server.url)):
        printed = run_cli("search", photo, "-k", "12", "--json", *where)
        assert printed.returncode == 0, printed.stderr
        answer = json.loads(printed.stdout)
        assert (answer["results"], answer["nearest"]) == (over_http["results"], over_http["nearest"])
        assert answer["versions"] == over_http["versions"]
    hits = Engine.load(real_index).search(photo.read_bytes(), 12)
    assert [hit.model_dump(by_alias=True) for hit in hits] == over_http["results"]


def test_the_command_line_prints_a_table_for_people(real_index: IndexDirectory, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(car_photo(0, 0))
    printed = run_cli("search", photo, "--index", real_index.root, "-k", "1", "--class", KOREAN)
    assert printed.returncode == 0, printed.stderr
    assert KOREAN in printed.stdout
    assert f"{KOREAN}/0.jpg" in printed.stdout


def test_087_answers_are_never_crossed_between_concurrent_clients(wide: tuple[Server, Path]) -> None:
    server, gallery = wide
    photos = sorted(path for path in gallery.rglob("*.jpg"))

    def found(path: Path) -> str:
        response = httpx.post(f"{server.url}/search", files={"file": path.read_bytes()}, timeout=60)
        identity: str = response.json()["nearest"]["id"]
        return identity

    with ThreadPoolExecutor(len(photos)) as clients:
        answers = list(clients.map(found, photos))
    assert answers == [quote(path.relative_to(gallery).as_posix()) for path in photos]


def test_a_photo_that_is_deleted_is_still_found_but_has_no_image(wide: tuple[Server, Path]) -> None:
    server, gallery = wide
    doomed = gallery / "car 6" / "5.jpg"
    photo = doomed.read_bytes()
    doomed.unlink()
    nearest = search(server, photo)["nearest"]
    assert nearest["id"] == "car%206/5.jpg"
    assert server.client.get(nearest["image"]).json()["code"] == "unknown_item"


def test_a_photo_that_was_changed_since_it_was_indexed_is_not_shown_for_the_old_one(wide: tuple[Server, Path]) -> None:
    server, gallery = wide
    nearest = search(server, (gallery / "car 5" / "5.jpg").read_bytes())["nearest"]
    etag = server.client.get(nearest["image"]).headers["etag"]
    (gallery / "car 5" / "5.jpg").write_bytes(car_photo(40))
    for headers in ({}, {"If-None-Match": etag}):
        assert server.client.get(nearest["image"], headers=headers).json()["code"] == "unknown_item"


def test_real_photos_find_themselves(cars: Path, tmp_path: Path, real_embedder: Embedder) -> None:
    folders = sorted(path for path in (cars / "val").iterdir() if path.is_dir())[:3]
    manifest = tmp_path / "some.csv"
    photos = [path for folder in folders for path in sorted(folder.iterdir())[:5]]
    manifest.write_text("path,class\n" + "".join(f'"{path}","{path.parent.name}"\n' for path in photos))
    build_index(manifest, IndexDirectory(tmp_path / "index"), real_embedder)
    engine = Engine.load(IndexDirectory(tmp_path / "index"))
    for path in photos:
        assert engine.search(path.read_bytes(), 1)[0].score == pytest.approx(1, abs=1e-6)
