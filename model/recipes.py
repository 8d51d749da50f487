"""Training recipes: each is a readable value, and the card of a model keeps the one it was made with."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from model.card import InputSpec
from model.errors import UnknownRecipe


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained by classification.

    `schedule` "step" multiplies the learning rate by `lr_factor` every `lr_step_epochs`; "onecycle" is Smith & Topin's
    (2018), with `lr` as its maximum. `batch_size` counts photos over all processes together.
    """

    name: str
    architecture: str
    input: InputSpec
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: Literal["adam", "adamw"]
    schedule: Literal["step", "onecycle"]
    lr_step_epochs: int = 0
    lr_factor: float = 0.1
    label_smoothing: float = 0.0
    holdout: float = 0.2
    seed: int = 0

    def shortened(self, epochs: int | None) -> "Recipe":
        """The same recipe over fewer or more epochs, its schedule scaled with them."""
        if epochs is None or epochs == self.epochs:
            return self
        step = max(1, round(self.lr_step_epochs * epochs / self.epochs)) if self.lr_step_epochs else 0
        return dataclasses.replace(self, epochs=epochs, lr_step_epochs=step)


BASELINE = Recipe(
    name="baseline",
    architecture="resnet18",
    input=InputSpec(resize=256, crop=224),
    epochs=100,
    batch_size=256,
    lr=0.01,
    weight_decay=1e-4,
    optimizer="adam",
    schedule="step",
    lr_step_epochs=40,
)
"""The seed's own: random weights, cross-entropy, Adam, x0.1 every 40 of 100 epochs."""

QUICK = Recipe(
    name="quick",
    architecture="resnet18",
    input=InputSpec(resize=112, crop=96),
    epochs=12,
    batch_size=64,
    lr=2e-3,
    weight_decay=0.05,
    optimizer="adamw",
    schedule="onecycle",
    label_smoothing=0.1,
)
"""A small network in minutes on two cores, so that a first run on one's own photos shows the whole way."""

RECIPES = {recipe.name: recipe for recipe in (BASELINE, QUICK)}


def recipe_named(name: str) -> Recipe:
    """Looks a recipe up; raises UnknownRecipe with the names there are."""
    if name not in RECIPES:
        raise UnknownRecipe(f'There is no recipe "{name}"; there are: {", ".join(sorted(RECIPES))}.')
    return RECIPES[name]
