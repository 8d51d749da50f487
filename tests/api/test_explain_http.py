"""`explain` of a search: maps in the answer that add up to the score, work that is counted, photos that are gone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.http.admission import FairShare
from service.http.schemas import SearchResponse
from tests.support.app import AppClient, running_app
from tests.support.calls import assert_problem, search
from tests.support.photos import car_photo


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, gallery: Path) -> Path:
    return Path(shutil.copytree(gallery, tmp_path_factory.mktemp("photos") / "photos"))


@pytest.fixture(scope="module")
def client(photos: Path, shipped_embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    """The application over a model that ships, with one place: nothing takes two at a time."""
    root = tmp_path_factory.mktemp("index")
    build_index(photos, IndexDirectory(root), shipped_embedder)
    with running_app(root, runtime="openvino", search_threads=1, max_queue=0) as running:
        yield running


def test_the_maps_of_the_first_five_photos_add_up_to_their_scores(client: AppClient) -> None:
    answer = search(client, car_photo(1, 9), k=7, explain=1)
    assert SearchResponse.model_validate(answer).model_dump(by_alias=True, exclude_unset=True) == answer
    for hit in answer["results"][:5]:
        told = hit["explanation"]
        assert told["square"] is None  # the model sees whole photos
        for heat in (told["query"], told["hit"]):
            assert np.shape(heat) == (6, 6)
            assert np.sum(heat) + told["constant"] == pytest.approx(hit["score"], abs=1e-3)
    assert [hit["explanation"] for hit in answer["results"][5:]] == [None, None]
    assert answer["nearest"] == answer["results"][0]
    plain = search(client, car_photo(1, 9), k=7)
    assert [hit.pop("explanation") is None for hit in answer["results"]] == [False] * 5 + [True] * 2
    assert plain["results"] == answer["results"]


def test_a_search_by_an_id_is_explained_too(client: AppClient) -> None:
    response = client.post("/search", params={"explain": "true", "k": 1}, json={"id": "car 1/0.jpg"})
    (hit,) = response.json()["results"]
    assert np.sum(hit["explanation"]["hit"]) == pytest.approx(hit["score"], abs=1e-3)


def test_each_explanation_takes_a_work_place_as_a_search_does(
    client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, taken = FairShare.take, []

    def counted(share: FairShare, holder: str, amount: int = 1) -> None:
        taken.append(share.limit)
        take(share, holder, amount)

    monkeypatch.setattr(FairShare, "take", counted)
    search(client, car_photo(), k=3)
    assert taken.count(1) == 1  # the limit of work places is 1
    taken.clear()
    search(client, car_photo(), k=3, explain=1)
    assert taken.count(1) == 1 + 1 + 3  # the search, the feature maps of the query, three photos


def test_a_photo_that_is_gone_or_has_changed_has_no_explanation(client: AppClient, photos: Path) -> None:
    first, second, third = (hit["id"] for hit in search(client, car_photo(2, 9), k=3)["results"])
    kept = {name: (photos / name).read_bytes() for name in (first, second)}
    (photos / first).unlink()
    (photos / second).write_bytes(car_photo(8, 8))
    try:
        answer = search(client, car_photo(2, 9), k=3, explain=1)
        assert [hit["explanation"] is None for hit in answer["results"]] == [True, True, False]
        of_gone = client.post("/search", params={"explain": 1, "k": 1}, json={"id": first})
        assert of_gone.json()["nearest"]["explanation"] is None
        assert third == answer["results"][2]["id"]
    finally:
        for name, data in kept.items():
            (photos / name).write_bytes(data)


def test_a_model_that_cannot_explain_says_so(api_client: AppClient) -> None:
    answer = api_client.post("/search", params={"explain": 1}, files={"file": ("photo.jpg", car_photo())})
    assert_problem(answer, "explanation_unavailable")
    assert search(api_client, car_photo(), explain=0)["nearest"].keys().isdisjoint({"explanation"})


def test_a_batch_is_not_explained(api_client: AppClient) -> None:
    answer = api_client.post("/search/batch", params={"explain": 1}, files={"file": ("photo.jpg", car_photo())})
    assert_problem(answer, "unknown_parameter")
