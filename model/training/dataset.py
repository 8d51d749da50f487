"""The photos of training as augmented crops, and the order in which they come.

The randomness of a crop depends on seed, epoch and row alone. So a run that was killed and resumed sees the same crops
as one that was not, with any number of workers.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from model.dataset import Item
from model.errors import CarsearchError, DataInvalid
from model.images.decode import decode
from model.images.transform import canvas
from model.training.augment import augment
from model.training.recipes import Recipe
from model.types import Pixels

UNLABELLED = -1
"""Target of a photo without a label, and teacher's row of a photo that has one."""

Key = tuple[int, int]
"""(epoch, row): what the sampler yields and a training set is indexed by."""


class EpochSampler:
    """All rows in an order that depends on seed and epoch alone."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter([(self.epoch, int(row)) for row in order])


class TrainingSet:
    """Items as augmented crops: RandomResizedCrop of the spec's canvas, horizontal flip, the recipe's colour changes.

    Rows are those of `items`, then those of `unlabelled`, whose labels are ignored.
    """

    def __init__(self, items: Sequence[Item], recipe: Recipe, unlabelled: Sequence[Item] = ()) -> None:
        self.items = [*items, *unlabelled]
        self.recipe = recipe
        self.labelled = len(items)
        self.labels = sorted({item.label for item in items})
        codes = {label: target for target, label in enumerate(self.labels)}
        self.targets = [codes[item.label] for item in items] + [UNLABELLED] * len(unlabelled)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key) -> tuple[Pixels, int, int]:
        """(epoch, row) -> (uint8 (crop, crop, 3), target, the teacher's row)."""
        epoch, row = key
        photo = self._canvas(row)
        with torch.random.fork_rng(devices=()):
            seed = np.random.SeedSequence((self.recipe.seed, epoch, row)).generate_state(1, np.uint64)
            torch.default_generator.manual_seed(int(seed[0]))
            crop = augment(photo, self.recipe.crop_at(epoch), self.recipe)
        return crop, self.targets[row], row - self.labelled if row >= self.labelled else UNLABELLED

    def _canvas(self, row: int) -> Pixels:
        item = self.items[row]
        try:
            return canvas(decode(item.read(), self.recipe.input.resize), self.recipe.input)
        except CarsearchError as problem:  # it was readable before training began
            raise DataInvalid(f"{item.path} became unreadable while training: {problem}") from problem
