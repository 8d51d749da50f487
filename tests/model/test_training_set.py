"""Samplers that deal every row once, and crops that depend on seed, epoch and row alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.card import InputSpec
from model.data import Item, read_items
from model.errors import DataInvalid
from model.preprocess import Pixels, prepare
from model.training_set import TrainingSampler, TrainingSet, ValidationSampler, ValidationSet, random_crop
from tests.photos import car_pixels

SPEC = InputSpec(resize=40, crop=32)


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
    first, second = TrainingSet(items, SPEC, seed=3), TrainingSet(items, SPEC, seed=3)
    forward = {(epoch, row): first[epoch, row][0] for epoch in (0, 1) for row in (0, 5)}
    np.random.default_rng(99).random(10)
    for key in reversed(forward):
        assert np.array_equal(second[key][0], forward[key])
    crops = [*forward.values(), TrainingSet(items, SPEC, seed=4)[0, 0][0]]
    assert len({crop.tobytes() for crop in crops}) == 5


def test_targets_are_the_classes_in_order(items: list[Item]) -> None:
    photos = TrainingSet(items, SPEC, seed=0)
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
        TrainingSet(gone, SPEC, 0)[0, 0]
    with pytest.raises(DataInvalid, match=r"gone\.jpg became unreadable while training"):
        ValidationSet(gone, SPEC)[0]
