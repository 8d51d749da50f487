"""Recipes with other epochs, batches or crops keep their proportions."""

import dataclasses

import pytest

from model.training.recipes import BASELINE, RECIPES, RESNET18, Recipe


def test_fewer_epochs_step_sooner() -> None:
    assert [BASELINE.adapted(epochs=epochs).lr_step_epochs for epochs in (None, 100, 50, 1)] == [40, 40, 20, 1]


def test_smaller_batches_learn_more_slowly() -> None:
    assert BASELINE.adapted(batch_size=64).lr == 0.01 / 4
    assert dataclasses.replace(BASELINE.adapted(batch_size=64), batch_size=256, lr=0.01) == BASELINE


def test_smaller_crops_are_cut_from_smaller_photos() -> None:
    spec = BASELINE.adapted(crop=112).input
    assert (spec.resize, spec.crop, spec.fit) == (128, 112, "centre")
    half = RESNET18.adapted(crop=RESNET18.input.crop // 2)
    assert (half.input.resize, half.input.crop) == (RESNET18.input.resize // 2, RESNET18.input.crop // 2)
    assert half.train_crops == tuple(side // 2 for side in RESNET18.train_crops)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_without_changes_is_the_same_recipe(recipe: Recipe) -> None:
    assert recipe.adapted() == recipe == recipe.adapted(recipe.epochs, recipe.batch_size, recipe.input.crop)
