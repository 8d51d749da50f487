"""A gallery that changes while it is served: photos put, replaced, deleted, many at once, and who may do that."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from indexer.build import build_index
from indexer.delta import DeltaLog
from indexer.fold import fold_index
from indexer.stores.faiss import FaissStore
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import ManifestInvalid, StoreUnavailable
from model.types import Embeddings, Rows
from service import reloader
from service.engine import Engine
from tests.conftest import write_fake_model
from tests.support.app import AppClient, running_app
from tests.support.calls import assert_problem, eventually, metric
from tests.support.photos import KOREAN, car_photo, write_gallery

ADMIN, SEARCHER = "admin-0123456789abc", "searcher-0123456789"
KEY = {"X-Api-Key": ADMIN}
JPEG = {"Content-Type": "image/jpeg"}
TABLE = "path,class,price,year\n0.jpg,car 1,100,2001\n1.jpg,car 1,200,2002\n2.jpg,car 2,300,2003\n3.jpg,car 2,,\n"


class Shop:
    """A gallery with prices that two servers serve, and what a test does to it."""

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        self.gallery, self.folder, self.embedder = folder / "gallery", folder, embedder
        write_gallery(self.gallery, classes=2, photos=2, first_kind=1)
        rows = ["path,price", "car 1/0.jpg,100", "car 1/1.jpg,200", "car 2/0.jpg,300"]
        (self.gallery / "photos.csv").write_text("\n".join(rows) + "\n")
        self.index = IndexDirectory(folder / "index")
        build_index(self.gallery, self.index, embedder)
        (folder / "keys").write_text(f"{ADMIN} shop admin\n{SEARCHER} page search\n")
        self._stack = ExitStack()
        self.one, self.two = self.server(), self.server()

    def server(self, **settings: Any) -> AppClient:
        chosen = {"keys_file": self.folder / "keys", "delta_dir": self.folder / "delta", **settings}
        return self._stack.enter_context(running_app(self.index.root, **chosen))

    def close(self) -> None:
        self._stack.close()

    def put(self, identity: str, photo: bytes, client: Any = None, **query: Any) -> httpx.Response:
        path = f"/gallery/{quote(identity)}"
        return (client or self.one).request("PUT", path, params=query, content=photo, headers=KEY | JPEG)

    def delete(self, identity: str) -> httpx.Response:
        return self.one.delete(f"/gallery/{quote(identity)}", headers=KEY)

    def search(self, photo: bytes, client: Any = None, **query: Any) -> dict[str, Any]:
        answer = (client or self.one).post("/search", params=query, files={"file": photo}, headers=KEY)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ids(self, client: Any = None, **query: Any) -> list[str]:
        listed = (client or self.one).get("/gallery", params=query, headers=KEY).json()
        assert listed["total"] == len(listed["photos"])
        return [photo["id"] for photo in listed["photos"]]

    def switched(self, version: str) -> None:
        for client in (self.one, self.two):
            eventually(lambda: client.get("/info", headers=KEY).json()["versions"]["index"] == version, "a switch")  # noqa: B023


@pytest.fixture
def shop(tmp_path: Path, fake_embedder: Embedder) -> Iterator[Shop]:
    made = Shop(tmp_path, fake_embedder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> Iterator[Shop]:
    """For tests of what is refused."""
    made = Shop(tmp_path_factory.mktemp("unchanged"), fake_embedder)
    yield made
    assert made.ids() == FOUR
    made.close()


FOUR = ["car 1/0.jpg", "car 1/1.jpg", "car 2/0.jpg", "car 2/1.jpg"]


def test_a_photo_that_is_put_is_found_by_the_next_search_and_soon_by_other_servers(shop: Shop) -> None:
    photo = car_photo(7, 1)
    answer = shop.put("listings/77 %.jpg", photo, **{"class": "car 2"}, metadata='{"Price": 18900, "colour": "red"}')
    assert answer.status_code == 200, answer.text
    told = {"id": "listings/77 %.jpg", "class": "car 2", "metadata": {"price": 18900, "colour": "red"}}
    assert answer.json().items() >= told.items()
    for client in (shop.one, shop.two):
        eventually(lambda: len(shop.ids(client)) == 5, "the photo is seen")  # noqa: B023
        best = shop.search(photo, client)["nearest"]
        assert best.items() >= told.items()
        assert best["score"] == pytest.approx(1, abs=1e-6)
        assert shop.ids(client) == [*FOUR, "listings/77 %.jpg"]
        picture = client.get(best["image"])
        assert Image.open(io.BytesIO(picture.content)).size == (96, 72)
        assert client.get("/info", headers=KEY).json()["photos"] == 5
        assert client.get("/gallery/classes", headers=KEY).json() == {"car 1": 2, "car 2": 3}
        assert metric(client, "carsearch_changes") == 1


def test_a_photo_that_is_put_again_takes_the_place_of_the_one_before(shop: Shop) -> None:
    for kind in (8, 9):
        assert shop.put("car 1/0.jpg", car_photo(kind, 1), **{"class": "car 9"}).status_code == 200
    hits = shop.search(car_photo(9, 1), k=10)["results"]
    assert (hits[0]["id"], hits[0]["class"], hits[0]["metadata"]) == ("car 1/0.jpg", "car 9", {})
    assert sorted(hit["id"] for hit in hits) == FOUR
    assert shop.search(car_photo(8, 1))["nearest"]["score"] < 0.999
    like = shop.one.post("/search", json={"id": "car 1/0.jpg"}, headers=KEY).json()["results"]
    assert [hit["id"] for hit in like if hit["id"] == "car 1/0.jpg"] == []
    assert len(like) == 3


def test_a_photo_that_is_deleted_is_found_by_nobody(shop: Shop) -> None:
    assert shop.delete("car 1/0.jpg").status_code == 204
    shop.put("car 2/1.jpg", car_photo(2, 1))
    assert shop.delete("car 2/1.jpg").status_code == 204
    for identity in ("car 1/0.jpg", "car 2/1.jpg", "none.jpg"):
        assert_problem(shop.delete(identity), "unknown_item")
        assert_problem(shop.one.get(f"/gallery/{identity}/image", headers=KEY), "unknown_item")
    assert shop.ids() == ["car 1/1.jpg", "car 2/0.jpg"]
    assert {hit["id"] for hit in shop.search(car_photo(1, 0), k=10)["results"]} == {"car 1/1.jpg", "car 2/0.jpg"}
    assert shop.one.get("/gallery/classes", headers=KEY).json() == {"car 1": 1, "car 2": 1}


def test_equal_photos_stand_in_the_order_of_the_gallery(shop: Shop) -> None:
    same = car_photo(1, 0)
    for name in ("z.jpg", "a.jpg"):
        shop.put(name, same)
    assert [hit["id"] for hit in shop.search(same, k=3)["results"]] == ["car 1/0.jpg", "z.jpg", "a.jpg"]


def test_classes_filters_and_groups_are_of_the_whole_gallery(shop: Shop) -> None:
    shop.put("new/1.jpg", car_photo(1, 7), **{"class": "car 1"}, metadata='{"price": 150, "sold": "2020-01-31"}')
    shop.put("new/2.jpg", car_photo(5, 7), **{"class": "neu"}, metadata='{"price": 90}')
    shop.put("car 1/1.jpg", car_photo(1, 1), **{"class": "neu"})
    photo = car_photo(1, 9)

    def found(**query: Any) -> set[str]:
        return {hit["id"] for hit in shop.search(photo, k=10, **query)["results"]}

    assert found(**{"class": "car 1"}) == set(shop.ids(**{"class": "car 1"})) == {"car 1/0.jpg", "new/1.jpg"}
    assert found(**{"class": "neu"}) == {"new/2.jpg", "car 1/1.jpg"}
    assert found(where="price < 160") == set(shop.ids(where="price < 160")) == {"car 1/0.jpg", "new/1.jpg", "new/2.jpg"}
    assert found(where="sold > 2019-12-31") == {"new/1.jpg"}
    assert found(where="not price = 100 and price < 160", **{"class": "neu"}) == {"new/2.jpg"}
    groups = shop.search(photo, k=10, group="class")["results"]
    assert {hit["class"] for hit in groups} == {"car 1", "car 2", "neu"}
    alone = {label: shop.search(photo, k=1, **{"class": label})["nearest"] for label in ("car 1", "car 2", "neu")}
    assert {hit["class"]: (hit["id"], hit["score"]) for hit in groups} == {
        label: (hit["id"], hit["score"]) for label, hit in alone.items()
    }
    unknown = shop.one.post("/search", params={"class": "none"}, files={"file": photo}, headers=KEY)
    assert_problem(unknown, "unknown_class")


def test_photos_that_are_put_have_a_vote_and_a_new_class_is_decided_on_at_once(shop: Shop) -> None:
    photo = car_photo(8, 1)
    for shot in range(3):
        shop.put(f"x/{shot}.jpg", car_photo(8, shot), **{"class": "car 2"})
    assert shop.search(photo)["decision"]["class"] == "car 2"
    for shot in range(3):
        shop.put(f"x/{shot}.jpg", car_photo(8, shot), **{"class": "neu"})
    before = shop.search(photo)["decision"]
    assert before["class"] == "neu"
    result = fold_index(shop.index, DeltaLog(shop.folder / "delta"))
    shop.switched(result.version)
    assert shop.search(photo)["decision"]["class"] == "neu"
    for shot in range(3):
        shop.delete(f"x/{shot}.jpg")
    assert shop.search(photo)["decision"]["class"] != "neu"


def test_an_evaluation_is_of_the_gallery_as_it_was_indexed(shop: Shop) -> None:
    state = shop.one.app.state.parts
    before = state.reloader.loaded.served.decider.weights.rows
    shop.put("y.jpg", car_photo(8, 1), **{"class": "neu"})
    shop.search(car_photo(8, 1))
    after = state.reloader.loaded.served.decider
    assert after.weights.rows is before
    assert "neu" not in after.labels


def test_pages_of_the_list_go_on_after_photos_that_were_put(shop: Shop) -> None:
    for number in range(3):
        shop.put(f"new/{number}.jpg", car_photo(3, number))
    shop.delete("car 1/1.jpg")
    eventually(lambda: len(shop.ids(shop.two)) == 6, "the other server follows")
    after: int | None = -1
    seen: list[str] = []
    for turn in range(6):
        client = (shop.one, shop.two)[turn % 2]
        page = client.get("/gallery", params={"limit": 1, "after": after}, headers=KEY).json()
        seen += [photo["id"] for photo in page["photos"]]
        after = page["next"]
    assert (seen, after) == (["car 1/0.jpg", *FOUR[2:], *(f"new/{number}.jpg" for number in range(3))], None)


def test_many_photos_come_in_one_form_with_their_table(shop: Shop) -> None:
    photos = [("file", (f"{number}.jpg", car_photo(4, number))) for number in range(4)]
    photos[3] = ("file", ("3.jpg", b"no photo"))
    answer = shop.one.post("/gallery", files=[("file", ("photos.csv", TABLE)), *photos], headers=KEY)
    assert answer.status_code == 200, answer.text
    told = answer.json()["photos"]
    assert [one["name"] for one in told] == [f"{number}.jpg" for number in range(4)]
    assert (
        told[1]["photo"].items() >= {"id": "1.jpg", "class": "car 1", "metadata": {"price": 200, "year": 2002}}.items()
    )
    assert told[3]["problem"]["code"] == "unsupported_image_format"
    assert shop.ids(where="year >= 2002") == ["1.jpg", "2.jpg"]
    plain = shop.one.post("/gallery", files=[("file", ("a/b.jpg", car_photo(4, 9)))], headers=KEY)
    assert plain.json()["photos"][0]["photo"].items() >= {"id": "a/b.jpg", "class": None}.items()


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([("photos.csv", b"path,class\n")], "missing_file"),
        ([("photos.csv", b"path\nb.jpg\n"), ("a.jpg", b"x")], "invalid_request"),
        ([("photos.csv", b"path\na.jpg\na.jpg\n"), ("a.jpg", b"x"), ("b.jpg", b"x")], "invalid_request"),
        ([("photos.csv", b"path\na.jpg\n"), ("photos.csv", b"path\n"), ("a.jpg", b"x")], "invalid_request"),
        ([("caf\u00e9.jpg", b"x"), ("cafe\u0301.jpg", b"y")], "duplicate_id"),
        ([("photos.csv", b"where\nb.jpg\n"), ("a.jpg", b"x")], "manifest_invalid"),
        ([("a.jpg", b"x"), ("a.jpg", b"y")], "duplicate_id"),
    ],
)
def test_a_form_that_says_something_else_is_refused(unchanged: Shop, files: list[tuple[str, bytes]], code: str) -> None:
    answer = unchanged.one.post("/gallery", files=[("file", file) for file in files], headers=KEY)
    assert_problem(answer, code)


@pytest.mark.parametrize(
    "identity", ["../a.jpg", "a/../b.jpg", "/etc/passwd", "a//b.jpg", "a/", "a\n.jpg", "a\0.jpg", "x" * 501]
)
def test_a_hostile_id_is_refused(unchanged: Shop, identity: str) -> None:
    path = f"/gallery/{quote(identity, safe='')}"
    answer = unchanged.one.request("PUT", path, content=car_photo(), headers=KEY | JPEG)
    assert_problem(answer, "invalid_request")
    assert [path.name for path in (unchanged.folder / "delta" / "photos").iterdir()] == []


@pytest.mark.parametrize(
    "identity", ["'; DROP TABLE changes; --", "<b>&amp;%2e%2e", f"{KOREAN}/가.jpg", "a/image", "classes"]
)
def test_an_odd_id_stays_text(shop: Shop, identity: str) -> None:
    assert shop.put(identity, car_photo(6, 1)).json()["id"] == identity
    best = shop.search(car_photo(6, 1))["nearest"]
    assert best["id"] == identity
    assert shop.one.get(best["image"]).status_code == 200
    assert shop.delete(identity).status_code == 204


def test_two_forms_of_an_id_are_one(shop: Shop) -> None:
    for put, other in (("cafe\u0301.jpg", "caf\u00e9.jpg"), ("caf\u00e9.jpg", "cafe\u0301.jpg")):
        assert shop.put(put, car_photo(6, 1)).json()["id"] == "caf\u00e9.jpg"
        assert shop.one.get(f"/gallery/{quote(other)}/image", headers=KEY).status_code == 200
        assert shop.one.post("/search", json={"id": other}, headers=KEY).status_code == 200
        assert shop.delete(other).status_code == 204


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"metadata": "{"}, "invalid_request"),
        ({"metadata": "[1]"}, "invalid_request"),
        ({"metadata": '{"a": true}'}, "invalid_request"),
        ({"metadata": '{"price": "cheap"}'}, "invalid_request"),
        ({"metadata": '{"price": NaN}'}, "invalid_request"),
        ({"metadata": json.dumps({str(number): 1 for number in range(65)})}, "invalid_request"),
        ({"metadata": '{"a": "\\ud800"}'}, "invalid_request"),
        ({"class": "a\nb"}, "invalid_request"),
        ({"label": "a"}, "unknown_parameter"),
    ],
)
def test_what_a_gallery_cannot_hold_is_refused(unchanged: Shop, query: dict[str, str], code: str) -> None:
    assert_problem(unchanged.put("a.jpg", car_photo(), **query), code)
    assert unchanged.ids() == FOUR


def test_a_photo_that_is_none_is_refused(unchanged: Shop) -> None:
    assert_problem(unchanged.put("a.jpg", b"no photo"), "unsupported_image_format")
    assert_problem(unchanged.put("a.jpg", b""), "empty_file")
    in_json = unchanged.one.request("PUT", "/gallery/a.jpg", json={"id": "car 1/0.jpg"}, headers=KEY)
    assert_problem(in_json, "unsupported_content_type")


# Keys and origins that may change the gallery.

WRITES = [("PUT", "/gallery/a.jpg"), ("DELETE", "/gallery/car%201/0.jpg"), ("POST", "/gallery")]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_key_for_searches_and_none_do_not_write(unchanged: Shop, method: str, path: str) -> None:
    assert_problem(unchanged.one.request(method, path), "unauthorized")
    assert_problem(unchanged.one.request(method, path, headers={"X-Api-Key": SEARCHER}), "forbidden")


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver:81", "https://testserver"])
def test_a_page_of_another_origin_does_not_write_even_with_a_key(
    unchanged: Shop, method: str, path: str, origin: str
) -> None:
    for site in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert_problem(unchanged.one.request(method, path, headers=KEY | {"Origin": origin} | site), "forbidden")


@pytest.mark.parametrize(
    "own", [{"Origin": "http://testserver"}, {"Origin": "https://cars.example", "Sec-Fetch-Site": "same-origin"}]
)
def test_a_page_of_the_server_itself_writes_also_behind_a_proxy_that_ends_tls(shop: Shop, own: dict[str, str]) -> None:
    headers = KEY | JPEG | own
    assert shop.one.request("PUT", "/gallery/a.jpg", content=car_photo(), headers=headers).status_code == 200


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_server_without_keys_or_without_a_log_takes_no_changes(shop: Shop, method: str, path: str) -> None:
    without_keys = shop.server(keys_file=None)
    assert_problem(without_keys.request(method, path, headers=KEY), "forbidden")
    assert without_keys.get("/gallery").json()["total"] == 4
    assert_problem(shop.server(delta_dir=None).request(method, path, headers=KEY), "forbidden")


def test_other_origins_may_read_and_never_write(shop: Shop) -> None:
    allowing = shop.server(cors_origins="https://shop.example")
    asking = {"Origin": "https://shop.example", "Access-Control-Request-Headers": "x-api-key"}
    for method, path in WRITES:
        answer = allowing.request("OPTIONS", path, headers=asking | {"Access-Control-Request-Method": method})
        assert answer.status_code == 400
        assert method not in answer.headers["access-control-allow-methods"]


def test_a_gallery_that_has_changed_too_much_waits_for_a_fold(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloader, "FEWEST_CHANGES", 2)
    for shot in range(2):
        assert shop.put(f"{shot}.jpg", car_photo(3, shot)).status_code == 200
    assert (metric(shop.one, "carsearch_changes"), metric(shop.one, "carsearch_changes_limit")) == (2, 2)
    assert_problem(shop.put("2.jpg", car_photo(3, 2)), "gallery_full")
    assert_problem(shop.delete("0.jpg"), "gallery_full")
    shop.switched(fold_index(shop.index, DeltaLog(shop.folder / "delta")).version)
    assert shop.put("2.jpg", car_photo(3, 2)).status_code == 200
    assert metric(shop.one, "carsearch_changes") == 1


def test_while_the_log_cannot_be_used_searches_go_on_and_that_is_told_once(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.put("a.jpg", car_photo(3, 1))
    assert shop.one.state.reloader.delta is not None
    shop.one.state.reloader.delta.close()
    assert_problem(shop.put("b.jpg", car_photo(3, 2)), "delta_unusable")
    assert_problem(shop.delete("a.jpg"), "delta_unusable")
    eventually(lambda: "The log of changes in" in caplog.text, "the log says so")
    for _ in range(3):
        shop.one.state.reloader.follow()
    assert [record.name for record in caplog.records if record.levelname == "ERROR"] == ["carsearch"]
    assert shop.ids() == [*FOUR, "a.jpg"]


def test_a_log_that_could_not_be_followed_is_followed_later(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    away = threading.Event()
    away.set()
    vectors = FaissStore.vectors

    def answering(store: FaissStore, rows: Rows) -> Embeddings:
        if away.is_set():
            raise StoreUnavailable("Milvus does not answer.")
        return vectors(store, rows)

    monkeypatch.setattr(FaissStore, "vectors", answering)
    assert_problem(shop.delete("car 1/0.jpg"), "backend_unavailable")
    assert shop.ids(shop.two) == FOUR
    away.clear()
    for client in (shop.one, shop.two):
        eventually(lambda: shop.ids(client) == FOUR[1:], "the photo is gone")  # noqa: B023


def test_changes_are_shown_while_a_version_loads(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    loading, go_on = threading.Event(), threading.Event()
    load = Engine.load

    def slowly(*args: Any, **options: Any) -> Engine:
        loading.set()
        assert go_on.wait(30)
        return load(*args, **options)

    monkeypatch.setattr(Engine, "load", slowly)
    shop.put("a.jpg", car_photo(3, 1))
    version = fold_index(shop.index, DeltaLog(shop.folder / "delta")).version
    assert loading.wait(30)
    shop.put("b.jpg", car_photo(3, 2))
    eventually(lambda: shop.ids(shop.two) == [*FOUR, "a.jpg", "b.jpg"], "the photo is seen")
    go_on.set()
    shop.switched(version)
    assert sorted(shop.ids(shop.two)) == sorted([*FOUR, "a.jpg", "b.jpg"])


def test_photos_of_one_form_have_no_more_columns_than_a_gallery_together(shop: Shop) -> None:
    assert shop.put("a.jpg", car_photo(3, 1), metadata=json.dumps(dict.fromkeys(map(str, range(30)), 1))).is_success
    columns = [f"{half}{number}" for half in "xy" for number in range(20)]
    cells = [["1"] * 20 + [""] * 20, [""] * 20 + ["1"] * 20]
    rows = [["path", *columns], ["0.jpg", *cells[0]], ["1.jpg", *cells[1]]]
    table = "\n".join(map(",".join, rows)).encode()
    files = [("photos.csv", table), *((f"{shot}.jpg", car_photo(3, shot)) for shot in (0, 1))]
    answer = shop.one.post("/gallery", files=[("file", file) for file in files], headers=KEY)
    assert_problem(answer, "invalid_request")
    assert "at most 64 columns" in answer.json()["detail"]
    assert shop.ids() == [*FOUR, "a.jpg"]


def test_more_columns_than_a_gallery_may_have_end_a_rebuild_with_a_sentence(shop: Shop) -> None:
    shop.put("a.jpg", car_photo(3, 1), metadata='{"mileage": 5, "doors": 4}')
    header = ",".join(["path", *(f"c{number}" for number in range(63))])
    (shop.gallery / "photos.csv").write_text("\n".join([header, ",".join(["car 1/0.jpg", *["1"] * 63])]) + "\n")
    with pytest.raises(ManifestInvalid, match="65 columns of metadata, and 64 are the most"):
        build_index(shop.gallery, shop.index, shop.embedder, delta=DeltaLog(shop.folder / "delta"))


def test_a_class_whose_last_photo_was_deleted_is_unknown(shop: Shop) -> None:
    for shot in range(2):
        shop.delete(f"car 1/{shot}.jpg")
    answer = shop.one.post("/search", params={"class": "car 1"}, files={"file": car_photo()}, headers=KEY)
    assert_problem(answer, "unknown_class")
    assert shop.one.get("/info", headers=KEY).json()["classes"] == 1


# Versions.


def test_folds_rebuilds_and_rollbacks_keep_every_change(shop: Shop) -> None:
    first = shop.index.current()
    shop.put("new.jpg", car_photo(3, 1), **{"class": "car 3"}, metadata='{"price": 5}')
    shop.delete("car 1/0.jpg")
    log = DeltaLog(shop.folder / "delta")
    kept = [*FOUR[1:], "new.jpg"]
    folded = fold_index(shop.index, log)
    assert (folded.embedded, folded.photos) == (0, 4)
    shop.switched(folded.version)
    rebuilt = build_index(shop.gallery, shop.index, shop.embedder, delta=log)
    assert (rebuilt.changed, rebuilt.removed) == (False, 0)
    for version in (folded.version, first):
        shop.index.rollback(version)
        shop.switched(version)
        assert sorted(shop.ids()) == sorted(shop.ids(shop.two)) == kept
        assert shop.search(car_photo(3, 1))["nearest"].items() >= {"id": "new.jpg", "metadata": {"price": 5}}.items()
        image = shop.search(car_photo(3, 1))["nearest"]["image"]
        assert shop.one.get(image).status_code == 200
    shop.delete("new.jpg")
    sha256 = next((shop.folder / "delta" / "photos").iterdir()).name
    assert fold_index(shop.index, log).photos == 3
    assert not (shop.folder / "delta" / "photos" / sha256).exists()
    log.close()


def test_photos_that_another_model_has_embedded_are_embedded_again(shop: Shop, tmp_path: Path) -> None:
    embedder = Embedder.load(write_fake_model(tmp_path / "other-model", crop=48), "fake")
    assert embedder.embedding_id != shop.embedder.embedding_id
    old = shop.index.current()
    shop.put("before.jpg", car_photo(3, 1))
    log = DeltaLog(shop.folder / "delta")
    new = build_index(shop.gallery, shop.index, embedder, delta=log)
    shop.switched(new.version)
    shop.put("after.jpg", car_photo(4, 1))
    for version in (new.version, old):
        shop.index.rollback(version)
        shop.switched(version)
        for client in (shop.one, shop.two):
            for name, kind in (("before.jpg", 3), ("after.jpg", 4)):
                photo = car_photo(kind, 1)
                eventually(lambda: shop.search(photo, client)["nearest"]["id"] == name, "the photo is seen")  # noqa: B023
                assert shop.search(photo, client)["nearest"]["score"] == pytest.approx(1, abs=1e-6)
    assert fold_index(shop.index, log).photos == 6
    log.close()
