"""Datasets: augmented crops for training, and the crops of serving for validation.

The randomness of a crop depends on seed, epoch and row alone. So a run that was killed and resumed sees the same crops
as one that was not, with any number of workers.
"""

from collections.abc import Sequence

import numpy as np

from model.card import InputSpec
from model.dataset import Item
from model.errors import CarsearchError, DataInvalid
from model.images.decode import decode
from model.images.transform import canvas, fit
from model.training.augment import change_colours, erase, random_crop
from model.training.recipes import Recipe
from model.training.sampler import Key
from model.types import Pixels

UNLABELLED = -1
"""Target of a photo without a label, and teacher's row of a photo that has one."""


class TrainingSet:
    """Items as augmented crops: RandomResizedCrop of the spec's canvas, horizontal flip, the recipe's colour changes.

    Rows are those of `items`, then those of `unlabelled`, whose labels are ignored. With `cache`, a process decodes a
    photo once and keeps its canvas: about 0.2 MB a photo at 256 pixels.
    """

    def __init__(
        self, items: Sequence[Item], recipe: Recipe, unlabelled: Sequence[Item] = (), cache: bool = False
    ) -> None:
        self.items = [*items, *unlabelled]
        self.recipe = recipe
        self.labelled = len(items)
        self.cached: dict[int, Pixels] | None = {} if cache else None
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
        if recipe.jitter or recipe.hue or recipe.grey:
            crop = change_colours(crop, random, recipe)
        if random.random() < recipe.erase:
            crop = erase(crop, random)
        return crop, self.targets[row], row - self.labelled if row >= self.labelled else UNLABELLED

    def _canvas(self, row: int) -> Pixels:
        if self.cached is not None and row in self.cached:
            return self.cached[row]
        photo = canvas(_decode(self.items[row]), self.recipe.input)
        if self.cached is not None:
            self.cached[row] = photo
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


def _decode(item: Item) -> Pixels:
    try:
        return decode(item.read())
    except CarsearchError as problem:  # it was readable before training began
        raise DataInvalid(f"{item.path} became unreadable while training: {problem}") from problem
