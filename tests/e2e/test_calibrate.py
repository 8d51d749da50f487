"""`carsearch calibrate`: how far the probabilities of an index can be trusted, for people and as JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from tests.conftest import Printed
from tests.support.photos import car_photo, write_gallery


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, shipped_embedder: Embedder) -> IndexDirectory:
    """Enough photos for a fit of their own: 12 classes of 18."""
    folder = tmp_path_factory.mktemp("calibrate")
    index = IndexDirectory(folder / "index")
    build_index(write_gallery(folder / "photos", classes=12, photos=18), index, shipped_embedder)
    return index


def test_the_figures_are_those_that_the_index_was_fitted_with(
    index: IndexDirectory, carsearch: Callable[..., Printed]
) -> None:
    printed = carsearch("calibrate", "--index", index.root, "--precision", "0.9", "--json")
    assert printed.returncode == 0, printed.stderr
    told = json.loads(printed.stdout)
    assert (told["photos"], told["fitted"]["photos"], told["wanted"]) == (216, 216, 0.9)
    assert sum(one["photos"] for one in told["bins"]) == 216
    assert told["error"] == pytest.approx(told["fitted"]["error"], abs=1e-6)
    right = sum(one["photos"] * one["right"] for one in told["bins"] if one["photos"])
    assert right / 216 == pytest.approx(told["fitted"]["top1"])
    assert [point["precision"] for point in told["curve"]] == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99]
    assert np.diff([point["coverage"] for point in told["curve"]]).max() <= 0


def test_tables_and_a_sentence_are_printed(index: IndexDirectory, carsearch: Callable[..., Printed]) -> None:
    printed = carsearch("calibrate", "--index", index.root)
    assert printed.returncode == 0, printed.stderr
    assert "reliability on 216 photos" in printed.stdout
    assert "precision against coverage" in printed.stdout
    assert "For a precision of 0.95 a class is named from a probability of" in printed.stdout
    assert "(fitted on 216 photos)" in printed.stdout


def test_a_search_prints_the_class_and_how_sure_it_is(
    real_embedder: Embedder, carsearch: Callable[..., Printed], tmp_path: Path
) -> None:
    index = IndexDirectory(tmp_path / "index")
    build_index(write_gallery(tmp_path / "photos", classes=12, photos=18), index, real_embedder)
    (tmp_path / "photo.jpg").write_bytes(car_photo(3, 99))
    printed = carsearch("search", tmp_path / "photo.jpg", "--index", index.root, "--precision", "0.5")
    assert re.fullmatch(
        r"(class|unsure): car \d+, probability [01]\.\d\d, \d+% of the ten nearest photos",
        printed.stdout.splitlines()[0],
    )


def test_a_search_prints_that_a_drawing_is_no_car(
    index: IndexDirectory, carsearch: Callable[..., Printed], tmp_path: Path
) -> None:
    """The model that ships knows photos and rendered pictures of cars."""
    (tmp_path / "photo.jpg").write_bytes(car_photo(3, 99))
    printed = carsearch("search", tmp_path / "photo.jpg", "--index", index.root)
    sentence = r"not_a_car: the photo shows a car with a probability of 0\.[0-4]\d"
    assert re.fullmatch(sentence, printed.stdout.splitlines()[0])


def test_an_index_of_few_photos_a_class_cannot_be_tried(
    tmp_path: Path, shipped_embedder: Embedder, carsearch: Callable[..., Printed]
) -> None:
    build_index(write_gallery(tmp_path / "photos", classes=3, photos=9), tmp_path / "index", shipped_embedder)
    printed = carsearch("calibrate", "--index", tmp_path / "index")
    assert printed.returncode == 0, printed.stderr
    first, second = printed.stdout.splitlines()
    assert first == "No class of this index has ten photos, too few to try the probabilities on."
    assert second == "For a precision of 0.95 a class is named from a probability of 0.950 on (the fit that ships)."
    assert json.loads(carsearch("calibrate", "--index", tmp_path / "index", "--json").stdout)["photos"] == 0
