"""Random crops and colour changes within the recipe's limits."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from model.training.augment import augment
from model.training.recipes import QUICK
from model.types import Pixels

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def augmented(photo: Pixels, times: int, side: int = 32, **changes: Any) -> list[Pixels]:
    recipe = dataclasses.replace(QUICK, **changes)
    return [augment(photo, side, recipe) for _ in range(times)]


def flat(*colour: int) -> Pixels:
    return np.full((64, 64, 3), colour, np.uint8)


def test_crops_show_places_sizes_and_mirror_images_within_the_limits() -> None:
    """The photo's red is its column and its green its row, so that a crop tells where it was cut."""
    side = 250
    photo: Pixels = np.zeros((side, side, 3), np.uint8)
    photo[..., 0], photo[..., 1] = np.arange(side)[None], np.arange(side)[:, None]
    areas, aspects, flipped = [], [], 0
    for crop in augmented(photo, 400, 64, crop_area=0.25):
        assert crop.dtype == np.uint8
        assert crop.shape == (64, 64, 3)
        red, green = crop[0, :, 0].astype(int), crop[:, 0, 1].astype(int)
        width, height = abs(red[-1] - red[0]), green[-1] - green[0]
        areas.append(width * height / side**2)
        aspects.append(width / height)
        flipped += red[0] > red[-1]
    assert 0.2 < min(areas) < 0.3
    assert 0.85 < max(areas) <= 1
    assert 0.70 < min(aspects) < 0.80
    assert 1.25 < max(aspects) < 1.43
    assert 150 < flipped < 250


def test_colours_change_within_the_recipes_strength() -> None:
    dull = flat(100, 50, 50)
    lights = [float(crop.mean()) for crop in augmented(dull, 200, jitter=0.3)]
    assert 0.65 < min(lights) / dull.mean() < 0.8 < 1.2 < max(lights) / dull.mean() < 1.35
    assert all(np.ptp(crop, axis=2).max() == 0 for crop in augmented(dull, 5, grey=1.0))
    assert all((crop == dull[0, 0]).all() for crop in augmented(dull, 5))


def test_a_red_turns_to_every_hue_but_keeps_its_light() -> None:
    turned = [crop[0, 0] for crop in augmented(flat(200, 0, 0), 100, hue=0.5)]
    assert {int(colour.argmax()) for colour in turned} == {0, 1, 2}
    assert {int(colour.max()) for colour in turned} == {200}
    slightly = [crop[0, 0] for crop in augmented(flat(200, 0, 0), 100, hue=0.1)]
    assert {int(colour.argmax()) for colour in slightly} == {0}


def test_a_rectangle_of_at_most_a_fifth_is_erased_with_noise() -> None:
    crops = augmented(flat(44, 44, 44), 200, 64, erase=1.0)
    shares = [(crop != 44).any(axis=2).mean() for crop in crops]
    assert 0.015 < min(shares) < 0.05 < 0.17 < max(shares) < 0.22
    assert min(len(np.unique(crop)) for crop in crops) > 50
    assert sum((crop != 44).any() for crop in augmented(flat(44, 44, 44), 200, erase=0.25)) in range(30, 70)
