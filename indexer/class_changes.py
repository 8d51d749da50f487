"""Scores of classes in a gallery that changes: those of a class to which photos were put, or from which some went.

A class that changed, or a new one, gets the weights that a fit would give it (`indexer/class_weights.py`). What differs
within classes, and the weights of the others, stay those of the version: few photos hardly change them.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from indexer.class_weights import ClassFit, ClassWeights, Values, mean_likeness, of_unit_length
from model.types import Embeddings, Rows


class ClassStatistics:
    """Sums of a version's photos, from which the weights of each class are computed.

    `sums` float32 (C, D) are those of each class, `counts` int64 (C,) the numbers of its photos; `inverse` float32
    (D, D) is that of the second moment of all (`ClassFit`).
    """

    def __init__(self, sums: Embeddings, inverse: Embeddings, counts: Rows) -> None:
        self.sums, self.inverse, self.counts = sums, inverse, counts

    @classmethod
    def of(cls, fit: ClassFit) -> Self:
        return cls(fit.sums.astype(np.float32), fit.inverse.astype(np.float32), fit.counts)

    @classmethod
    def read(cls, path: Path, dim: int, counts: Rows) -> Self:
        """Maps what `write` wrote; raises ValueError for a file of another size."""
        shape = len(counts) + dim, dim
        if path.stat().st_size != 4 * shape[0] * shape[1]:
            raise ValueError(path)
        values = np.memmap(path, "<f4", "r", shape=shape)
        return cls(values[: len(counts)], values[len(counts) :], counts)

    def write(self, path: Path) -> None:
        path.write_bytes(np.concatenate([self.sums, self.inverse]).astype("<f4", copy=False).tobytes())

    @cached_property
    def _likeness(self) -> float:
        return mean_likeness(self.sums.astype(np.float64), self.counts)

    @cached_property
    def _means(self) -> Embeddings:
        return of_unit_length(self.sums.astype(np.float64), self.counts, self._likeness).astype(np.float32)

    @cached_property
    def _responses(self) -> Embeddings:
        """Row c times a photo is how much of the mean of class c the mapped photo has."""
        middles = self.sums / self.counts[:, None].astype(np.float32)
        found: Embeddings = np.multiply(middles, self._share) @ self.inverse
        return found

    @property
    def _share(self) -> np.float32:
        """The weight of all photos of a class together, which the fit gives to each."""
        return np.float32(self.counts.sum() / len(self.counts))

    def weights_of(self, code: int, total: Values, count: int) -> Embeddings:
        """The row, as of `ClassWeights.rows`, of a class whose photos are so many and have the sum float64 (D,).

        It is one of the version's, or a new one with a number after theirs; others are as in the version.
        """
        mean = of_unit_length(total[None], np.array([count]), self._likeness)[0].astype(np.float32)
        middle = (total / max(count, 1)).astype(np.float32)
        alike = self._means @ mean
        alike[code : code + 1] = 0
        before = middle @ self.inverse
        row = alike @ self._responses + (mean @ mean) * self._share * before
        # Sherman & Morrison: as if the inverse had been made with this middle of the class in the place of its old one.
        if code < len(self.counts):
            old_middle = self.sums[code] / np.float32(self.counts[code])
            at = old_middle @ self.inverse
            at *= self._share / (1 - self._share * (at @ old_middle))
            row, before = row + (row @ old_middle) * at, before + (before @ old_middle) * at
        changed: Embeddings = row - (row @ middle) * self._share / (1 + self._share * (before @ middle)) * before
        return changed


class _Changed(NamedTuple):
    """A class with changes: the sum of its photos, their number, and its weights."""

    total: Values
    photos: int
    weights: Embeddings


class ChangedWeights(ClassWeights):
    """Class weights where some classes have changed, and new ones have numbers after the others."""

    def __init__(
        self, rows: Embeddings, of_version: ClassStatistics, changed: dict[int, _Changed] | None = None
    ) -> None:
        super().__init__(rows)
        self._of_version, self._changed = of_version, changed or {}

    def followed_by(self, codes: Rows, vectors: Embeddings, steps: Sequence[int]) -> "ChangedWeights":
        """These after some photos came (step 1) or went (-1), with classes int64 (n,) and vectors float32 (n, D)."""
        signs: npt.NDArray[np.int64] = np.asarray(steps, np.int64)
        changed = dict(self._changed)
        for code in np.unique(codes[codes >= 0]).tolist():
            own = codes == code
            total, count = self._total_of(code)
            count += int(signs[own].sum())
            total = total + signs[own].astype(np.float64) @ vectors[own] if count else np.zeros_like(total)
            changed[code] = _Changed(total, count, self._of_version.weights_of(code, total, count))
        return ChangedWeights(self.rows, self._of_version, changed)

    def _total_of(self, code: int) -> tuple[Values, int]:
        if (known := self._changed.get(code)) is not None:
            return known.total, known.photos
        if code < len(self.rows):
            return self._of_version.sums[code].astype(np.float64), int(self._of_version.counts[code])
        return np.zeros(self.rows.shape[1]), 0

    def scores(self, queries: Embeddings, codes: Rows) -> Values:
        """As of `ClassWeights`; a class of no photos has 0."""
        found = super().scores(queries, np.where(codes < len(self.rows), codes, -1))
        for code in self._changed.keys() & set(np.unique(codes).tolist()):
            query, neighbour = np.nonzero(codes == code)
            found[query, neighbour] = queries[query] @ self._changed[code].weights
        return found
