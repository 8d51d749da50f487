"""What answers are worth: each figure on sets whose value can be worked out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.answers import (
    COLOURS,
    by_photos,
    colour_of,
    measure,
    probability_of_halves,
    same_colour,
    tables_of,
    unknown_classes,
)
from model.types import Embeddings
from tests.support.photos import write_gallery


def unit(rows: np.ndarray) -> Embeddings:
    found: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def classes_apart(classes: int, photos: int) -> tuple[Embeddings, np.ndarray]:
    codes = np.repeat(np.arange(classes), photos)
    noise = 0.05 * np.random.default_rng(0).normal(size=(len(codes), classes))
    return unit(np.eye(classes)[codes] + noise), codes


def test_classes_that_lie_apart_are_found_with_one_photo_each() -> None:
    found = by_photos(*classes_apart(12, 5))
    assert [(one.photos, one.nearest, one.class_) for one in found] == [
        (1, 1.0, 1.0),
        (2, 1.0, 1.0),
        (3, 1.0, 1.0),
        (None, 1.0, 1.0),
    ]


def test_without_any_difference_between_classes_chance_is_left() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(200, 30)))
    found = by_photos(rows, np.repeat(np.arange(20), 10))
    assert [one.photos for one in found] == [1, 2, 3, 5, None]
    assert all(0.02 < one.nearest < 0.09 for one in found)


def test_photos_of_missing_classes_are_far_from_a_gallery_of_others() -> None:
    by_probability, by_cosine = unknown_classes(*classes_apart(24, 20))
    assert by_cosine == pytest.approx(1, abs=1e-6)
    assert 0 <= by_probability <= 1  # where every decision is right there is nothing to fit


def test_where_every_decision_is_right_the_probability_has_nothing_to_tell() -> None:
    assert probability_of_halves(*classes_apart(24, 20)) is None


def test_the_probability_of_half_of_the_classes_holds_for_the_other_half() -> None:
    """A quarter of the photos lies anywhere: the rest is right, and the probability tells which is which."""
    rows, codes = classes_apart(24, 20)
    lost = np.arange(len(rows)) % 4 == 0
    rows[lost] = unit(np.random.default_rng(1).normal(size=(lost.sum(), 24)))
    found = probability_of_halves(rows, codes)
    assert found is not None
    assert found.auroc > 0.88
    assert found.error < 0.15
    assert 0.5 < found.coverage < 0.75
    assert found.precision > 0.93


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((20, 20, 22), "black"),
        ((110, 112, 110), "grey"),
        ((235, 235, 240), "white"),
        ((180, 20, 40), "red to yellow"),
        ((200, 180, 20), "red to yellow"),
        ((30, 160, 60), "green"),
        ((20, 40, 170), "blue to violet"),
    ],
)
def test_a_colour_is_that_of_the_middle(colour: tuple[int, int, int], name: str) -> None:
    photo = np.full((80, 120, 3), 255, np.uint8)
    photo[20:60, 30:90] = colour
    assert COLOURS[colour_of(photo)] == name


def test_colours_of_wrong_neighbours_are_counted_and_those_of_right_ones_are_not() -> None:
    rows = unit(np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1.0]]))
    classes, colours = np.array([0, 0, 1, 2]), np.array([3, 4, 5, 5])
    # Rows 2 and 3 are each other's wrong neighbours, and one of the three photos of other classes is like each.
    assert same_colour(rows, classes, colours) == pytest.approx((1.0, 1 / 3))
    assert same_colour(rows[:2], classes[:2], colours[:2]) == (0.0, 0.0)


@pytest.mark.slow
def test_all_figures_are_measured_with_a_model_that_ships(tmp_path: Path) -> None:
    cars, pictures = write_gallery(tmp_path / "cars", classes=4, photos=4), tmp_path / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(pictures / "noise.png")
    (pictures / "broken.jpg").write_bytes(b"no photo")
    found = measure(cars, None, [pictures])
    assert [one.photos for one in found.by_photos] == [1, 2, 3, None]
    assert 0 < found.upload_distance < 1
    assert found.pass_ == {str(pictures): 0.0}
    assert len(tables_of(found)) == 2
