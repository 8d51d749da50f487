"""A sampler that deals every row once, and crops that depend on seed, epoch and row alone."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.card import InputSpec
from model.dataset import Item, read_items
from model.errors import DataInvalid
from model.images.transform import canvas, fit
from model.training.dataset import EpochSampler, TrainingSet
from model.training.recipes import QUICK, Recipe
from model.types import Pixels

pytestmark = pytest.mark.torch

SPEC = InputSpec(resize=40, crop=32)


def recipe(**changes: Any) -> Recipe:
    return dataclasses.replace(QUICK, input=SPEC, **changes)


@pytest.fixture
def items(gallery: Path) -> list[Item]:
    return read_items(gallery).items


def test_an_epoch_deals_every_row_once_in_an_order_that_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(50, seed)
        sampler.set_epoch(epoch)
        assert {of for of, _ in sampler} == {epoch}
        return [row for _, row in sampler]

    assert sorted(order(1, 2)) == list(range(50))
    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_a_crop_depends_on_seed_epoch_and_row_and_on_nothing_else(items: list[Item]) -> None:
    first, second = TrainingSet(items, recipe(seed=3)), TrainingSet(items, recipe(seed=3))
    forward = {(epoch, row): first[epoch, row][0] for epoch in (0, 1) for row in (0, 5)}
    state = torch.get_rng_state()
    for key in reversed(forward):
        assert np.array_equal(second[key][0], forward[key])
    assert torch.equal(torch.get_rng_state(), state)
    crops = [*forward.values(), TrainingSet(items, recipe(seed=4))[0, 0][0]]
    assert len({crop.tobytes() for crop in crops}) == 5


def test_targets_are_the_classes_in_order(items: list[Item]) -> None:
    photos = TrainingSet(items, recipe(seed=0))
    assert len(photos) == 12
    assert photos.labels == sorted({item.label for item in items})
    assert [photos.labels[photos[0, row][1]] for row in range(12)] == [item.label for item in items]


def test_crops_grow_over_equal_parts_of_the_epochs(items: list[Item]) -> None:
    growing = recipe(epochs=6, train_crops=(16, 24, 32))
    assert [growing.crop_at(epoch) for epoch in range(6)] == [16, 16, 24, 24, 32, 32]
    assert TrainingSet(items, growing)[2, 0][0].shape == (24, 24, 3)
    assert recipe(epochs=6).crop_at(0) == SPEC.crop
    assert growing.adapted(epochs=3).crop_at(2) == 32


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
    assert [photos[0, row][1:] for row in (0, 7, 8, 11)] == [(0, -1), (1, -1), (-1, 0), (-1, 3)]


def test_a_photo_that_vanishes_while_training_is_named(tmp_path: Path) -> None:
    gone = [Item(id="a/1", label="a", path=tmp_path / "gone.jpg")]
    with pytest.raises(DataInvalid, match=r"gone\.jpg became unreadable while training"):
        TrainingSet(gone, recipe(seed=0))[0, 0]
