"""What training reads: augmented crops whose randomness depends on seed, epoch and row alone.

So a run that was killed and resumed sees the same crops as one that was not, with any number of workers.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from model.card import InputSpec
from model.data import Item
from model.errors import CarsearchError, DataInvalid
from model.preprocess import Pixels, decode, fit, resize_shorter_side

Key = tuple[int, int]
"""(epoch, row): what a sampler yields and a training set is indexed by."""

CROP_AREA = (0.08, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)


class TrainingSet:
    """Items as augmented crops: Resize(resize) + RandomResizedCrop(crop) + horizontal flip."""

    def __init__(self, items: Sequence[Item], spec: InputSpec, seed: int) -> None:
        self.items = items
        self.spec = spec
        self.seed = seed
        self.labels = sorted({item.label for item in items})
        self._target = {label: target for target, label in enumerate(self.labels)}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key) -> tuple[Pixels, int]:
        """(epoch, row) -> (uint8 (crop, crop, 3), target)."""
        epoch, row = key
        random = np.random.default_rng((self.seed, epoch, row))
        photo = resize_shorter_side(_decode(self.items[row]), self.spec.resize)
        return random_crop(photo, self.spec.crop, random), self._target[self.items[row].label]


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


def random_crop(photo: Pixels, crop: int, random: np.random.Generator) -> Pixels:
    """RandomResizedCrop and horizontal flip as torchvision defines them: uint8 (H, W, 3) -> uint8 (crop, crop, 3)."""
    left, top, width, height = _random_box(photo.shape[1], photo.shape[0], random)
    region = Image.fromarray(photo[top : top + height, left : left + width])
    resized = np.asarray(region.resize((crop, crop), Image.Resampling.BILINEAR))
    return (resized[:, ::-1] if random.random() < 0.5 else resized).copy()


def _random_box(width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, width, height): ten attempts, then the largest central box within the aspect limits."""
    for _ in range(10):
        area = width * height * random.uniform(*CROP_AREA)
        aspect = math.exp(random.uniform(math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(random.integers(0, width - box_width + 1))
            return left, int(random.integers(0, height - box_height + 1)), box_width, box_height
    box_width = min(width, round(height * CROP_ASPECT[1]))
    box_height = min(height, round(width / CROP_ASPECT[0]))
    return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height


def _decode(item: Item) -> Pixels:
    try:
        return decode(item.read())
    except CarsearchError as problem:
        # Unreadable photos were taken out before training began, so this one changed under our feet.
        raise DataInvalid(f"{item.path} became unreadable while training: {problem}") from problem
