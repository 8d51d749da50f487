"""What training reads: augmented crops whose randomness depends on seed, epoch and row alone.

So a run that was killed and resumed sees the same crops as one that was not, with any number of workers.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from model.card import InputSpec
from model.dataset import Item
from model.errors import CarsearchError, DataInvalid
from model.images.decode import decode
from model.images.transform import canvas, fit
from model.training.augment import jitter, random_crop
from model.training.recipes import Recipe
from model.types import Pixels

Key = tuple[int, int]
"""(epoch, row): what a sampler yields and a training set is indexed by."""

UNLABELLED = -1
"""Target of a photo without a label, and teacher's row of a photo that has one."""


class TrainingSet:
    """Items as augmented crops: RandomResizedCrop of the spec's canvas, horizontal flip, the recipe's colour changes.

    Rows are those of `items` and then those of `unlabelled`, whose labels are not looked at. With `cache`, a process
    decodes a photo once and keeps its canvas: about 0.2 MB a photo at 256 pixels.
    """

    def __init__(
        self, items: Sequence[Item], recipe: Recipe, unlabelled: Sequence[Item] = (), cache: bool = False
    ) -> None:
        self.items = [*items, *unlabelled]
        self.recipe = recipe
        self.labelled = len(items)
        self.kept: dict[int, Pixels] | None = {} if cache else None
        self.labels = sorted({item.label for item in items})
        codes = {label: target for target, label in enumerate(self.labels)}
        self.targets = [codes[item.label] for item in items] + [UNLABELLED] * len(unlabelled)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key) -> tuple[Pixels, int, int]:
        """(epoch, row) -> (uint8 (crop, crop, 3), target, the teacher's row)."""
        epoch, row = key
        recipe = self.recipe
        random = np.random.default_rng((recipe.seed, epoch, row))
        crop = random_crop(self._canvas(row), recipe.crop_at(epoch), random, recipe.crop_area)
        if recipe.jitter or recipe.grey:
            crop = jitter(crop, random, recipe.jitter, recipe.grey)
        return crop, self.targets[row], row - self.labelled if row >= self.labelled else UNLABELLED

    def _canvas(self, row: int) -> Pixels:
        if self.kept is not None and row in self.kept:
            return self.kept[row]
        photo = canvas(_decode(self.items[row]), self.recipe.input)
        if self.kept is not None:
            self.kept[row] = photo
        return photo


class ValidationSet:
    """Items as the crops that serving sees, with their rows: row -> (uint8 (crop, crop, 3), row)."""

    def __init__(self, items: Sequence[Item], spec: InputSpec) -> None:
        self.items = items
        self.spec = spec
        codes = {label: code for code, label in enumerate(sorted({item.label for item in items}))}
        self.targets = np.array([codes[item.label] for item in items], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> tuple[Pixels, int]:
        return fit(_decode(self.items[row]), self.spec), row


class TrainingSampler:
    """A new permutation each epoch, cut into equal shares for the processes; a remainder waits for another epoch."""

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.world_size

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        share = order[self.rank :: self.world_size][: len(self)]
        return iter([(self.epoch, int(row)) for row in share])


class ValidationSampler:
    """Every row once, dealt to the processes in turn; short shares are padded with row 0, whose repeats are dropped."""

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.rows = list(range(rank, length, world_size))
        share = math.ceil(length / world_size)
        self.rows += [0] * (share - len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)


def _decode(item: Item) -> Pixels:
    try:
        return decode(item.read())
    except CarsearchError as problem:
        # Unreadable photos were taken out before training began, so this one changed under our feet.
        raise DataInvalid(f"{item.path} became unreadable while training: {problem}") from problem
