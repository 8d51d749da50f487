"""Samplers that deal every row once, and crops that depend on seed, epoch and row alone."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.card import InputSpec
from model.dataset import Item, read_items
from model.errors import DataInvalid
from model.images.transform import canvas, fit, prepare
from model.training.augment import jitter, random_crop
from model.training.dataset import TrainingSampler, TrainingSet, ValidationSampler, ValidationSet
from model.training.recipes import QUICK, Recipe
from model.types import Pixels
from tests.support.photos import car_pixels

SPEC = InputSpec(resize=40, crop=32)


def recipe(**changes: Any) -> Recipe:
    return dataclasses.replace(QUICK, input=SPEC, **changes)


@pytest.fixture
def items(gallery: Path) -> list[Item]:
    return read_items(gallery).items


@given(length=st.integers(1, 200), world_size=st.integers(1, 5), epoch=st.integers(0, 3))
def test_an_epoch_deals_rows_once_in_equal_shares(length: int, world_size: int, epoch: int) -> None:
    dealt: list[int] = []
    for rank in range(world_size):
        sampler = TrainingSampler(length, 7, rank, world_size)
        sampler.set_epoch(epoch)
        share = list(sampler)
        assert len(share) == len(sampler) == length // world_size
        assert {of for of, _ in share} <= {epoch}
        dealt += [row for _, row in share]
    assert len(set(dealt)) == len(dealt) == length - length % world_size
    assert set(dealt) <= set(range(length))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = TrainingSampler(50, seed)
        sampler.set_epoch(epoch)
        return [row for _, row in sampler]

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_rows_that_one_epoch_leaves_over_come_in_another() -> None:
    seen: Counter[int] = Counter()
    for epoch in range(20):
        for rank in range(2):
            sampler = TrainingSampler(5, 0, rank, 2)
            sampler.set_epoch(epoch)
            seen.update(row for _, row in sampler)
    assert set(seen) == set(range(5))


@given(length=st.integers(1, 200), world_size=st.integers(1, 5))
def test_validation_deals_every_row_and_pads_with_row_0(length: int, world_size: int) -> None:
    shares = [list(ValidationSampler(length, rank, world_size)) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    counts = Counter(row for share in shares for row in share)
    assert set(counts) == set(range(length))
    assert counts - Counter(range(length)) == Counter({0: -length % world_size})


def test_the_remainder_of_seven_rows_for_two_is_padded() -> None:
    assert [list(ValidationSampler(7, rank, 2)) for rank in (0, 1)] == [[0, 2, 4, 6], [1, 3, 5, 0]]


def test_a_crop_depends_on_seed_epoch_and_row_and_on_nothing_else(items: list[Item]) -> None:
    first, second = TrainingSet(items, recipe(seed=3)), TrainingSet(items, recipe(seed=3))
    forward = {(epoch, row): first[epoch, row][0] for epoch in (0, 1) for row in (0, 5)}
    np.random.default_rng(99).random(10)
    for key in reversed(forward):
        assert np.array_equal(second[key][0], forward[key])
    crops = [*forward.values(), TrainingSet(items, recipe(seed=4))[0, 0][0]]
    assert len({crop.tobytes() for crop in crops}) == 5


def test_a_kept_canvas_gives_the_same_crops_and_is_decoded_once(gallery: Path, tmp_path: Path) -> None:
    shutil.copytree(gallery, tmp_path / "photos")
    items = read_items(tmp_path / "photos").items
    plain, cached = TrainingSet(items, recipe()), TrainingSet(items, recipe(), cache=True)
    keys = [(epoch, row) for epoch in (0, 1) for row in (0, 5)]
    expected = [plain[key][0] for key in keys]
    assert all(np.array_equal(cached[key][0], crop) for key, crop in zip(keys, expected, strict=True))
    items[5].path.unlink()
    assert np.array_equal(cached[1, 5][0], expected[3])


def test_targets_are_the_classes_in_order(items: list[Item]) -> None:
    photos = TrainingSet(items, recipe(seed=0))
    assert len(photos) == 12
    assert photos.labels == sorted({item.label for item in items})
    assert [photos.labels[photos[0, row][1]] for row in range(12)] == [item.label for item in items]


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


def test_crops_grow_over_equal_parts_of_the_epochs(items: list[Item]) -> None:
    growing = recipe(epochs=6, train_crops=(16, 24, 32))
    assert [growing.crop_at(epoch) for epoch in range(6)] == [16, 16, 24, 24, 32, 32]
    assert TrainingSet(items, growing)[2, 0][0].shape == (24, 24, 3)
    assert recipe(epochs=6).crop_at(0) == SPEC.crop
    assert growing.shortened(3).crop_at(2) == 32


def test_a_stretched_photo_keeps_its_ends_in_training_and_in_serving() -> None:
    """The first and the last column are red; a centre crop loses them."""
    photo: Pixels = np.zeros((40, 120, 3), np.uint8)
    photo[:, :12, 0] = photo[:, -12:, 0] = 255
    stretch = dataclasses.replace(SPEC, fit="stretch")
    assert canvas(photo, stretch).shape == (40, 40, 3)
    assert fit(photo, stretch).shape == (32, 32, 3)
    assert fit(photo, stretch).flags.writeable
    assert fit(photo, stretch)[:, [0, -1], 0].min() == 255
    assert fit(photo, SPEC)[..., 0].max() == 0


def test_photos_without_labels_follow_with_their_rows_of_the_teacher(items: list[Item]) -> None:
    photos = TrainingSet(items[:8], recipe(), items[8:])
    assert len(photos) == 12
    assert photos.labelled == 8
    assert [photos[0, row][1:] for row in (0, 7, 8, 11)] == [(1, -1), (0, -1), (-1, 0), (-1, 3)]


def test_jitter_changes_light_and_colour_within_its_strength() -> None:
    random = np.random.default_rng(0)
    flat: Pixels = np.full((4, 4, 3), (100, 50, 50), np.uint8)
    means = [float(jitter(flat, random, 0.3, 0).mean()) for _ in range(200)]
    assert 0.65 < min(means) / flat.mean() < 0.8 < 1.2 < max(means) / flat.mean() < 1.35
    assert np.ptp(jitter(flat, random, 0, 1), axis=2).max() == 0
    assert np.array_equal(jitter(flat, random, 0, 0), flat)


def test_validation_sees_the_crop_that_serving_sees(items: list[Item]) -> None:
    photos = ValidationSet(items, SPEC)
    for row in (0, 7, 11):
        crop, same_row = photos[row]
        assert same_row == row
        assert np.array_equal(crop, prepare(items[row].read(), SPEC))
    assert photos.targets.tolist() == [2] * 4 + [0] * 4 + [1] * 4  # ids are in order, and "아" is "%EC..."


def test_a_photo_that_vanishes_while_training_is_named(tmp_path: Path) -> None:
    gone = [Item(id="a/1", label="a", path=tmp_path / "gone.jpg")]
    with pytest.raises(DataInvalid, match=r"gone\.jpg became unreadable while training"):
        TrainingSet(gone, recipe(seed=0))[0, 0]
    with pytest.raises(DataInvalid, match=r"gone\.jpg became unreadable while training"):
        ValidationSet(gone, SPEC)[0]
