"""Recipes made shorter, smaller or lighter keep their proportions."""

import dataclasses

from model.training.recipes import BASELINE, RESNET18


def test_fewer_epochs_step_sooner() -> None:
    assert [BASELINE.shortened(epochs).lr_step_epochs for epochs in (None, 100, 50, 1)] == [40, 40, 20, 1]


def test_smaller_batches_learn_more_slowly() -> None:
    assert BASELINE.batched(64).lr == 0.01 / 4
    assert dataclasses.replace(BASELINE.batched(64), batch_size=256, lr=0.01) == BASELINE
    assert BASELINE.batched(None) is BASELINE


def test_smaller_crops_are_cut_from_smaller_photos() -> None:
    spec = BASELINE.cropped(112).input
    assert (spec.resize, spec.crop, spec.fit) == (128, 112, "centre")
    assert BASELINE.cropped(None) is BASELINE
    half = RESNET18.cropped(RESNET18.input.crop // 2)
    assert (half.input.resize, half.input.crop) == (RESNET18.input.resize // 2, RESNET18.input.crop // 2)
    assert half.train_crops == tuple(side // 2 for side in RESNET18.train_crops)
