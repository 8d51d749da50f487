"""Duplicates of the gallery, with photos whose embeddings are angles: a photo's red value in degrees."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.runtimes.fake import FakeRuntime
from model.types import Embeddings, Pixels
from service.http.limits import Limits
from tests.support.app import AppClient, running_app
from tests.support.calls import assert_problem

ADMIN, SEARCHER = {"X-Api-Key": "admin-0123456789abc"}, {"X-Api-Key": "searcher-0123456789"}
PNG = {"Content-Type": "image/png"}


def at(degrees: int, side: int = 32) -> bytes:
    """A photo at an angle; photos of another side are other files."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (degrees, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def _angles(monkeypatch: pytest.MonkeyPatch) -> None:
    def embed(runtime: FakeRuntime, crops: Pixels) -> Embeddings:
        angles = np.radians(crops[:, 0, 0, 0].astype(np.float64))
        rows = np.zeros((len(crops), runtime.dim), np.float32)
        rows[:, 0], rows[:, 1] = np.cos(angles), np.sin(angles)
        return rows

    monkeypatch.setattr(FakeRuntime, "embed", embed)


class Lot:
    """A server with keys over photos at some angles, and what a test asks it."""

    def __init__(self, folder: Path, embedder: Embedder, photos: dict[str, bytes]) -> None:
        self.folder, self.index = folder, IndexDirectory(folder / "index")
        for name, data in photos.items():
            path = folder / "gallery" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        build_index(folder / "gallery", self.index, embedder)
        (folder / "keys").write_text("admin-0123456789abc shop admin\nsearcher-0123456789 page search\n")

    def serving(self, limits: Limits | None = None, **settings: Any) -> Any:
        chosen = {"keys_file": self.folder / "keys", "delta_dir": self.folder / "delta", **settings}
        return running_app(self.index.root, limits=limits or Limits(), **chosen)


def asked(client: AppClient, **query: Any) -> dict[str, Any]:
    answer = client.post("/gallery/duplicates", params=query, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def pairs(found: dict[str, Any]) -> list[tuple[str, str, float, bool]]:
    return [
        (*(photo["id"] for photo in one["photos"]), round(one["score"], 4), one["same_file"])
        for one in found["duplicates"]
    ]


PHOTOS = {"a/0.png": at(0), "a/1.png": at(10), "b/0.png": at(0), "b/1.png": at(90), "b/2.png": at(90, 40)}
"""cos 10 = 0.9848; two are one file, and two others at 90 degrees are not."""

COPY = ("a/0.png", "b/0.png", 1.0, True)
NEAR = [
    ("a/0.png", "a/1.png", 0.9848, False),
    ("a/1.png", "b/0.png", 0.9848, False),
    ("b/1.png", "b/2.png", 1.0, False),
]


@pytest.fixture
def lot(tmp_path: Path, fake_embedder: Embedder) -> Lot:
    return Lot(tmp_path, fake_embedder, PHOTOS)


@pytest.fixture
def client(lot: Lot) -> Iterator[AppClient]:
    with lot.serving() as running:
        yield running


def put(client: AppClient, identity: str, photo: bytes, **query: Any) -> httpx.Response:
    return client.request("PUT", f"/gallery/{identity}", params=query, content=photo, headers=ADMIN | PNG)


def test_copies_of_a_file_come_first_and_then_near_copies(client: AppClient) -> None:
    found = asked(client, min_score=0.98)
    assert pairs(found) == [COPY, *NEAR]
    assert (found["next"], found["min_score"], found["compared"], found["total"]) == (None, 0.98, 5, 5)
    photo = found["duplicates"][0]["photos"][1]
    assert (photo["class"], photo["metadata"]) == ("b", {})
    assert client.get(photo["image"]).status_code == 200
    assert pairs(asked(client, min_score=0.99)) == [COPY, NEAR[2]]
    assert pairs(asked(client, min_score=0.98, after="near:-1")) == NEAR
    assert pairs(asked(client, min_score=0.98, after="near:2")) == NEAR[2:]  # rows from 3 on


def test_without_a_score_a_sample_says_what_is_alike(client: AppClient) -> None:
    found = asked(client)  # the nearest are at 1, 0.9848, 1, 1 and 1: never above 0.97
    assert (found["min_score"], len(found["duplicates"])) == (0.97, 4)


def test_photos_that_were_put_and_deleted_count(client: AppClient) -> None:
    put(client, "new/1.png", at(0), **{"class": "c"})  # the third of its file
    put(client, "a/1.png", at(180))  # in the place of the one at 10 degrees
    client.delete("/gallery/b/2.png", headers=ADMIN)
    put(client, "new/2.png", at(92))  # cos 2 = 0.9994
    found = asked(client, min_score=0.98)
    third = ("a/0.png", "new/1.png", 1.0, True)
    assert pairs(found) == [COPY, third, ("b/1.png", "new/2.png", 0.9994, False)]
    assert (found["compared"], found["total"]) == (6, 6)
    client.delete("/gallery/a/0.png", headers=ADMIN)
    assert pairs(asked(client))[0] == ("b/0.png", "new/1.png", 1.0, True)


def test_pages_follow_each_other_without_a_gap(tmp_path: Path, fake_embedder: Embedder) -> None:
    # 25 of one file, and 21 others near them and near each other.
    photos = {f"a/{number:02}.png": at(0) for number in range(25)}
    photos |= {f"b/{number:02}.png": at(1, 32 + number) for number in range(21)}
    with Lot(tmp_path, fake_embedder, photos).serving(Limits(duplicates_s=0)) as client:
        pages = [asked(client, min_score=0.9999, limit=10)]
        while pages[-1]["next"] is not None:
            pages.append(asked(client, min_score=0.9999, after=pages[-1]["next"], limit=10))
        told = [pair for page in pages for pair in pairs(page)]
        sizes = [len(page["duplicates"]) for page in pages]
        compared = [page["compared"] for page in pages]
        assert [(first, later) for first, later, _, same_file in told if same_file] == [
            ("a/00.png", f"a/{number:02}.png") for number in range(1, 25)
        ]
        assert len(set(told)) == len(told)
        assert max(sizes) <= 10
        assert compared == sorted(compared)
        assert compared[-1] == 46
        # Of each near copy the ten nearest were looked at: each of the first eleven with all before it.
        near = [pair for pair in told if not pair[3]]
        assert {later for _, later, _, _ in near} == {f"b/{number:02}.png" for number in range(1, 21)}


def test_a_gallery_of_one_photo_and_one_without_any_have_none(tmp_path: Path, fake_embedder: Embedder) -> None:
    with Lot(tmp_path, fake_embedder, {"a/0.png": at(0)}).serving() as client:
        for total in (1, 0):
            found = asked(client)
            assert (found["duplicates"], found["next"], found["compared"], found["total"]) == ([], None, total, total)
            client.delete("/gallery/a/0.png", headers=ADMIN)


def test_it_is_work_for_admins_that_changes_nothing(lot: Lot, client: AppClient) -> None:
    assert_problem(client.post("/gallery/duplicates"), "unauthorized")
    assert_problem(client.post("/gallery/duplicates", headers=SEARCHER), "forbidden")
    with lot.serving(keys_file=None, delta_dir=None) as open_to_all:
        assert open_to_all.post("/gallery/duplicates").status_code == 200


@pytest.mark.parametrize(
    "query",
    [{"min_score": 2}, {"limit": 9}, {"limit": 201}, {"after": "17"}, {"after": "near:x"}, {"after": "near:-2"}],
)
def test_a_page_that_is_none_is_refused(client: AppClient, query: dict[str, Any]) -> None:
    assert_problem(client.post("/gallery/duplicates", params=query, headers=ADMIN), "invalid_request")


def test_a_photo_may_be_put_under_the_same_address(client: AppClient) -> None:
    assert put(client, "duplicates", at(45)).json()["id"] == "duplicates"
    assert client.delete("/gallery/duplicates", headers=ADMIN).status_code == 204


def test_the_server_tells_who_may_change_the_gallery(lot: Lot, client: AppClient) -> None:
    told = [client.get("/info", headers=key).json()["may_change"] for key in (ADMIN, SEARCHER)]
    assert told == [True, False]
    for without in ({"keys_file": None}, {"delta_dir": None}):
        with lot.serving(**without) as other:
            assert other.get("/info", headers=ADMIN).json()["may_change"] is False
