"""OpenVINO: the same photo has the same bits in every batch and thread, and only measured graphs run."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from model.card import GOLDEN_NAME, WEIGHTS_NAME, load_card
from model.cores import available_cores
from model.embedder import Embedder, find_model
from model.errors import ModelInvalid
from model.runtimes import load_runtime
from model.runtimes.openvino import OpenVINORuntime
from model.types import Embeddings, Pixels
from tests.support.calls import eventually
from tests.support.photos import car_photo

CORES = available_cores()
MODEL = find_model("resnet18")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    """A model that ships, in int8."""
    return Embedder.load(MODEL, "openvino")


@pytest.fixture(scope="module")
def crops(embedder: Embedder) -> Pixels:
    return np.stack([embedder.prepare(car_photo(kind, shot)) for kind in range(3) for shot in range(3)])


@pytest.fixture(scope="module")
def singles(embedder: Embedder, crops: Pixels) -> Embeddings:
    """Each crop embedded in a call of its own."""
    return np.concatenate([embedder.embed_crops(crop[None]) for crop in crops])


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_batch_gives_the_bits_of_single_calls(
    embedder: Embedder, crops: Pixels, singles: Embeddings, count: int
) -> None:
    assert np.array_equal(embedder.embed_crops(crops[:count]), singles[:count])


def test_four_threads_at_once_get_the_bits_of_single_calls(
    embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    orders = [np.random.default_rng(seed).permutation(len(crops)) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda order: embedder.embed_crops(crops[order]), orders))
    for order, embeddings in zip(orders, found, strict=True):
        assert np.array_equal(embeddings, singles[order])


def test_calls_that_fail_in_the_middle_leave_nothing_behind(
    embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    runtime = cast(OpenVINORuntime, embedder.runtime)
    for _ in range(3):
        given_up = runtime.submit(crops)
        with pytest.raises(ValueError, match="the graph takes"):  # crops of another size
            runtime.submit(crops[:2, 1:])
        del given_up  # nobody waits for it
    assert np.array_equal(embedder.embed_crops(crops), singles)
    lone = runtime.submit(crops[:1], lone=True)
    assert CORES == 1 or not lone.done()  # nothing is pending, so that who waits computes it
    assert np.array_equal(lone.wait(), singles[:1])


def test_batches_submitted_one_after_the_other_keep_their_own_rows(
    embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    runtime = cast(OpenVINORuntime, embedder.runtime)
    pending = [runtime.submit(crops[start : start + 2]) for start in range(0, 9, 2)]
    eventually(lambda: all(one.done() for one in pending), "all are embedded")
    for start, one in reversed(list(zip(range(0, 9, 2), pending, strict=True))):
        assert np.array_equal(one.wait(), singles[start : start + 2])


def test_lone_photos_get_the_same_bits_and_are_computed_by_who_waits(
    embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    runtime = cast(OpenVINORuntime, embedder.runtime)
    for row in range(3):
        lone = runtime.submit(crops[row : row + 1], lone=True)
        beside = runtime.submit(crops[row + 1 : row + 2], lone=True)  # which therefore is not
        assert np.array_equal(beside.wait(), singles[row + 1 : row + 2])
        assert CORES == 1 or not lone.done()
        assert np.array_equal(lone.wait(), singles[row : row + 1])


def test_one_photo_does_not_wait_for_all_of_an_evaluation(embedder: Embedder, crops: Pixels) -> None:
    finished: list[str] = []
    begun = threading.Event()

    def batch() -> None:
        many = np.repeat(crops[:1], 96, axis=0)
        begun.set()
        embedder.runtime.embed(many)
        finished.append("batch")

    evaluation = threading.Thread(target=batch)
    evaluation.start()
    begun.wait()
    for _ in range(3):
        embedder.embed_crops(crops[:1])
        finished.append("photo")
    evaluation.join()
    assert finished == ["photo", "photo", "photo", "batch"]


def test_embeddings_of_the_same_class_are_rows_of_length_1(singles: Embeddings, embedder: Embedder) -> None:
    assert singles.dtype == np.float32
    assert singles.shape == (9, embedder.dim) == (9, 512)
    assert np.linalg.norm(singles, axis=1) == pytest.approx(np.ones(9), abs=1e-6)


def test_no_crops_are_no_rows(embedder: Embedder, crops: Pixels) -> None:
    assert embedder.embed_crops(crops[:0]).shape == (0, 512)


def test_a_compiled_graph_from_the_cache_gives_the_same_bits(
    crops: Pixels, singles: Embeddings, tmp_path: Path
) -> None:
    for _ in range(2):
        embedder = Embedder.load(MODEL, "openvino", cache_dir=tmp_path)
        assert np.array_equal(embedder.embed_crops(crops[:2]), singles[:2])
    assert any(tmp_path.iterdir())


def test_a_graph_of_another_crop_or_dimension_than_the_card_is_refused() -> None:
    card = load_card(MODEL)
    with pytest.raises(ModelInvalid, match="says 511 dimensions, the graph gives 512"):
        load_runtime("openvino", MODEL, dataclasses.replace(card, embedding_dim=511))
    with pytest.raises(ModelInvalid, match="but the card says crops of 32 pixels"):
        load_runtime("openvino", MODEL, dataclasses.replace(card, input=dataclasses.replace(card.input, crop=32)))


def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "int8.xml").write_text("<no/>")
    with pytest.raises(ModelInvalid, match=r"int8\.xml is not a graph that OpenVINO can read"):
        load_runtime("openvino", tmp_path, load_card(MODEL))


def test_a_graph_that_the_card_does_not_name_is_not_served() -> None:
    card = load_card(MODEL)
    unmeasured = dataclasses.replace(card, files={name: card.files[name] for name in (WEIGHTS_NAME, GOLDEN_NAME)})
    with pytest.raises(ModelInvalid, match="has no OpenVINO graph; make one with: carsearch export"):
        load_runtime("openvino", MODEL, unmeasured)
