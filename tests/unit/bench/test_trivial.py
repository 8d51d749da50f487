"""Neighbours that see nothing: what they compare, worked by hand, and what they score on a set made for them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.trivial import colour_histogram, raw_pixels, trivial_scores
from model.dataset import read_items
from model.types import Pixels
from tests.support.photos import encoded, write_gallery


def flat(colour: tuple[int, int, int]) -> Pixels:
    return np.full((96, 128, 3), colour, np.uint8)


def test_a_histogram_knows_colours_and_not_places() -> None:
    half = flat((255, 0, 0))
    half[:48] = (0, 0, 255)
    found = colour_histogram(half)
    assert sorted(found[found > 0].tolist()) == pytest.approx([0.5**0.5, 0.5**0.5])
    assert np.array_equal(found, colour_histogram(half[::-1]))
    assert float(found @ colour_histogram(flat((250, 5, 5)))) == pytest.approx(0.5**0.5)


def test_raw_pixels_know_places_and_not_brightness() -> None:
    half = flat((40, 40, 40))
    half[:48] = 80
    assert float(raw_pixels(half) @ raw_pixels(half + 100)) == pytest.approx(1)
    assert float(raw_pixels(half) @ raw_pixels(half[::-1])) == pytest.approx(-1)
    assert np.linalg.norm(raw_pixels(flat((7, 7, 7)))) == pytest.approx(1)  # nothing to tell, but still of length 1


def test_colours_alone_solve_a_set_whose_classes_are_colours(tmp_path: Path) -> None:
    for label, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / label).mkdir()
        for shot in range(3):
            picture = flat(colour)
            picture[: 10 + 30 * shot] = 128
            (tmp_path / label / f"{shot}.png").write_bytes(encoded(Image.fromarray(picture), "PNG"))
    pixels, histogram = trivial_scores(read_items(tmp_path).items)
    assert (histogram.name, histogram.top1) == ("colour histogram", 1)
    assert pixels.name == "raw pixels"


def test_scores_come_with_intervals_and_progress(tmp_path: Path) -> None:
    items = read_items(write_gallery(tmp_path, classes=4, photos=3)).items
    told: list[tuple[int, int]] = []
    scores = trivial_scores(items, lambda done, total: told.append((done, total)))
    assert told == [(done, 12) for done in range(1, 13)]
    assert all(score.ci95.low <= score.top1 <= score.ci95.high for score in scores)
