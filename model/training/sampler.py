"""Samplers: which rows a process reads in an epoch. Their order depends on seed and epoch alone."""

import math
from collections.abc import Iterator

import numpy as np

Key = tuple[int, int]
"""(epoch, row): what the training sampler yields and a training set is indexed by."""


class TrainingSampler:
    """A new permutation each epoch, cut into equal shares for the processes; a remainder is left out of that epoch."""

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
