"""Training recipes. The card of a model keeps the recipe that it was trained with."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from model.card import MINUS_1_TO_1, InputSpec
from model.errors import SettingsInvalid


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained by classification, and by a teacher where there are photos without labels.

    `schedule` "step" divides the learning rate by ten every `lr_step_epochs`; "onecycle" is that of Smith & Topin
    (2018), with `lr` as its maximum.

    `init` is where the backbone's weights start: "random", "imagenet", a file of weights, or a model, by name or
    directory.

    `head` "linear" is plain cross-entropy. "normalised" is a softmax over scaled cosines, whose proxies learn
    `head_lr_factor` times as fast as the network.

    `pseudo_classes` is the number of clusters of the teacher's embeddings that become the classes of photos
    without labels; 0 means that those photos learn the teacher's cosines.

    Crops cover at least `crop_area` of a photo. `train_crops` lists their sides in pixels over equal parts of the
    epochs, because smaller crops are cheaper; empty means the input's own. `jitter` is how far brightness, contrast and
    saturation may differ from 1, `hue` how far hues may turn (0.5 is half of the circle), `grey` the share of crops
    without colour, `erase` the share in which a rectangle is filled with noise.

    `keep` says whose weights are kept: those of the epoch that validates best, or of the last one. The model's weights
    are the mean of the kept ones and of those of the teacher, where there is one, with the share `teacher_share`. A
    start from random weights leaves the teacher's out. With `whiten` the model gets a whitening where there are enough
    classes.
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
    label_smoothing: float = 0.0
    init: str = "random"
    head: Literal["linear", "normalised"] = "linear"
    head_lr_factor: float = 1.0
    pseudo_classes: int = 0
    crop_area: float = 0.08
    train_crops: tuple[int, ...] = ()
    jitter: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    erase: float = 0.0
    keep: Literal["best", "last"] = "best"
    teacher_share: float = 0.0
    whiten: bool = True
    seed: int = 0

    def crop_at(self, epoch: int) -> int:
        """Side of the crops of an epoch, in pixels.

        >>> dataclasses.replace(QUICK, epochs=4, train_crops=(64, 96)).crop_at(1)
        64
        """
        if not self.train_crops:
            return self.input.crop
        return self.train_crops[min(epoch * len(self.train_crops) // self.epochs, len(self.train_crops) - 1)]

    def adapted(self, epochs: int | None = None, batch_size: int | None = None, crop: int | None = None) -> "Recipe":
        """The same recipe with other epochs, batches or crops (sides in pixels), and what depends on them scaled.

        The learning rate follows the batch size (Goyal et al., "Accurate, Large Minibatch SGD", 2017).

        >>> BASELINE.adapted(epochs=50, batch_size=64, crop=112).lr
        0.0025
        """
        epochs, batch_size, crop = epochs or self.epochs, batch_size or self.batch_size, crop or self.input.crop
        share = crop / self.input.crop
        step = max(1, round(self.lr_step_epochs * epochs / self.epochs)) if self.lr_step_epochs else 0
        return dataclasses.replace(
            self,
            epochs=epochs,
            lr_step_epochs=step,
            batch_size=batch_size,
            lr=self.lr * (batch_size / self.batch_size),
            input=dataclasses.replace(self.input, resize=round(self.input.resize * share), crop=crop),
            train_crops=tuple(round(side * share) for side in self.train_crops),
        )


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
    keep="last",
    whiten=False,
)
"""The original project's recipe: random weights, cross-entropy, Adam, x0.1 every 40 of 100 epochs."""

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
"""A small network in minutes on two cores, for a first run on one's own photos."""

EFFICIENTNET_LITE0 = Recipe(
    name="efficientnet_lite0",
    architecture="efficientnet_lite0",
    input=InputSpec(resize=288, crop=288, fit="stretch", mean=MINUS_1_TO_1[0], std=MINUS_1_TO_1[1]),
    epochs=6,
    batch_size=32,
    lr=5e-4,
    weight_decay=0.02,
    optimizer="adamw",
    schedule="onecycle",
    label_smoothing=0.1,
    init="imagenet",
    head="normalised",
    head_lr_factor=10.0,
    pseudo_classes=500,
    crop_area=0.25,
    train_crops=(192, 224, 224),
    jitter=0.3,
    hue=0.25,
    grey=0.3,
    erase=0.25,
    keep="last",
    teacher_share=0.7,
    seed=1,
)
"""The model for real photos, and the teacher of `RESNET18`: published ImageNet weights, fine-tuned on cars."""

RESNET18 = Recipe(
    name="resnet18",
    architecture="resnet18",
    input=InputSpec(resize=192, crop=192, fit="stretch"),
    epochs=18,
    batch_size=96,
    lr=1.5e-3,
    weight_decay=0.05,
    optimizer="adamw",
    schedule="onecycle",
    label_smoothing=0.1,
    head="normalised",
    crop_area=0.3,
    train_crops=(96, 112, 128),
    jitter=0.3,
    grey=0.1,
    keep="last",
)
"""The benchmark's network: rendered and real classes, and a teacher for photos without labels. The shipped model
started from the baseline's weights (`--init`)."""

RECIPES = {recipe.name: recipe for recipe in (BASELINE, QUICK, EFFICIENTNET_LITE0, RESNET18)}


def recipe_named(name: str) -> Recipe:
    """Looks a recipe up; raises SettingsInvalid with the names there are."""
    if name not in RECIPES:
        raise SettingsInvalid(f'There is no recipe "{name}"; there are: {", ".join(sorted(RECIPES))}.')
    return RECIPES[name]
