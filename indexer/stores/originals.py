"""The vectors of a gallery as the network gave them, mapped from `embeddings.f32` and never held in memory."""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from model.errors import IndexInvalid
from model.types import Embeddings, Rows

ROWS_PER_CHECK = 8_192
UNIT_TOLERANCE = 1e-3
MOST_ANNOUNCED = 4_096
"""Rows that are announced to the system at once; more are read as they come."""


def check_unit(vectors: Callable[[slice], Embeddings], count: int, path: Path, allowed: float = UNIT_TOLERANCE) -> None:
    """Raises IndexInvalid unless all of `count` rows are unit vectors, up to `allowed`."""
    for start in range(0, count, ROWS_PER_CHECK):
        lengths = np.linalg.norm(vectors(slice(start, start + ROWS_PER_CHECK)), axis=1)
        if not (np.abs(lengths - 1) <= allowed).all():
            raise IndexInvalid(f"{path} holds rows that are not unit vectors.")


class Originals:
    """Unit rows float32 (n, D), in memory or mapped from a file; safe to read from several threads."""

    def __init__(self, matrix: Embeddings, mapped: mmap.mmap | None = None) -> None:
        self.matrix = matrix
        self._mapped = mapped

    @classmethod
    def read(cls, path: Path, dim: int, count: int) -> Self:
        """Maps a file of float32 (count, dim); raises IndexInvalid for one of another length, and OSError."""
        with path.open("rb") as file:
            if path.stat().st_size != 4 * dim * count:
                raise IndexInvalid(f"{path} has another length than its manifest says.")
            if not count:
                return cls(np.empty((0, dim), np.float32))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(np.frombuffer(mapped, "<f4").reshape(count, dim), mapped)

    def __len__(self) -> int:
        return len(self.matrix)

    def at(self, rows: Rows) -> Embeddings:
        """int64 (...) -> float32 (..., D)."""
        if self._mapped is not None and rows.size <= MOST_ANNOUNCED:
            self._announce(self._mapped, rows)
        vectors: Embeddings = self.matrix[rows]
        return vectors

    def _announce(self, mapped: mmap.mmap, rows: Rows) -> None:
        """Has the system read some rows at once: from a disk one after the other they would take a page fault each."""
        size = self.matrix.shape[1] * self.matrix.itemsize
        for row in np.unique(rows[rows >= 0]).tolist():
            start = row * size // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)
