"""Random crops and colour changes within their limits."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.card import InputSpec
from model.training.augment import change_colours, erase, random_crop
from model.training.recipes import QUICK
from model.types import Pixels
from tests.support.photos import car_pixels

pytestmark = pytest.mark.torch

SPEC = InputSpec(resize=40, crop=32)


@settings(max_examples=100, deadline=None)
@given(width=st.integers(16, 120), height=st.integers(16, 120), seed=st.integers(0, 2**32))
def test_a_random_crop_is_square_whole_and_writable(width: int, height: int, seed: int) -> None:
    photo = car_pixels(1, 0, (width, height))
    crop = random_crop(photo, 32, np.random.default_rng(seed))
    assert crop.shape == (32, 32, 3)
    assert crop.dtype == np.uint8
    assert crop.flags.c_contiguous
    assert crop.flags.writeable


def test_random_crops_show_places_sizes_and_mirror_images_within_torchvisions_limits() -> None:
    """The photo's red is its column and its green its row, so that a crop tells where it was cut."""
    side = 250
    photo: Pixels = np.zeros((side, side, 3), np.uint8)
    photo[..., 0], photo[..., 1] = np.arange(side)[None], np.arange(side)[:, None]
    random = np.random.default_rng(0)
    areas, aspects, flipped = [], [], 0
    for _ in range(400):
        crop = random_crop(photo, 64, random).astype(int)
        width, height = abs(crop[0, -1, 0] - crop[0, 0, 0]), crop[-1, 0, 1] - crop[0, 0, 1]
        areas.append(width * height / side**2)
        aspects.append(width / height)
        flipped += crop[0, 0, 0] > crop[0, -1, 0]
    assert 0.06 < min(areas) < 0.15
    assert 0.85 < max(areas) <= 1
    assert 0.70 < min(aspects) < 0.80
    assert 1.25 < max(aspects) < 1.43
    assert 150 < flipped < 250


def test_colours_change_within_the_recipes_strength() -> None:
    random = np.random.default_rng(0)
    flat: Pixels = np.full((4, 4, 3), (100, 50, 50), np.uint8)
    plain = dataclasses.replace(QUICK, jitter=0.0, hue=0.0, grey=0.0)
    lights = [float(change_colours(flat, random, dataclasses.replace(plain, jitter=0.3)).mean()) for _ in range(200)]
    assert 0.65 < min(lights) / flat.mean() < 0.8 < 1.2 < max(lights) / flat.mean() < 1.35
    assert np.ptp(change_colours(flat, random, dataclasses.replace(plain, grey=1.0)), axis=2).max() == 0
    assert np.array_equal(change_colours(flat, random, plain), flat)


def test_a_red_turns_to_every_hue_but_keeps_its_light() -> None:
    random = np.random.default_rng(0)
    red: Pixels = np.full((4, 4, 3), (200, 0, 0), np.uint8)
    turned = [change_colours(red, random, dataclasses.replace(QUICK, hue=0.5))[0, 0] for _ in range(100)]
    assert {int(colour.argmax()) for colour in turned} == {0, 1, 2}
    assert {int(colour.max()) for colour in turned} == {200}
    slightly = [change_colours(red, random, dataclasses.replace(QUICK, hue=0.1))[0, 0] for _ in range(100)]
    assert {int(colour.argmax()) for colour in slightly} == {0}


def test_a_rectangle_of_at_most_a_fifth_is_erased() -> None:
    random = np.random.default_rng(0)
    flat: Pixels = np.full((64, 64, 3), 44, np.uint8)
    shares = [(erase(flat, random) != flat).any(axis=2).mean() for _ in range(200)]
    assert 0.015 < min(shares) < 0.05 < 0.17 < max(shares) < 0.22
    assert (flat == 44).all()
