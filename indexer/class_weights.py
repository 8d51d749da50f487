"""A linear score of each class of a gallery, fitted in closed form.

Least squares finds the linear map that takes each photo to the mean of its class. The score of a class is the product
of the mapped photo and that mean, so what differs between photos of one class counts less than what differs between
classes. Classes count alike, however many photos they have. The map is the Wiener filter of class means, which is also
the posterior mean of probabilistic linear discriminant analysis (Ioffe, ECCV 2006).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from model.types import Embeddings, Rows

RIDGE = 0.2
"""In the units of a sum over photos: how much a direction in which they hardly differ is held back."""

PRIOR_PAIRS = 2
"""The length of a class's mean is estimated as if the class had so many more pairs of photos, of average likeness."""

LIKENESS = 0.5
"""The cosine of two photos of a class, where no class has two."""

LEAST_LIKENESS = 0.05
"""A class of two photos that are nothing alike would have a mean of no length."""

ROWS_PER_PART = 8_192
Values = npt.NDArray[np.float64]


class ClassWeights:
    """The score of a class is the product of an embedding and its row: float32 (C, D)."""

    def __init__(self, rows: Embeddings) -> None:
        self.rows = rows

    def scores(self, queries: Embeddings, codes: Rows) -> Values:
        """Scores of some classes, int64 (n, K), for queries float32 (n, D): float64 (n, K).

        Those of the code -1 say nothing.
        """
        found: Values = np.einsum("nd,nkd->nk", queries, self.rows[codes]).astype(np.float64)
        return found


class ClassFit:
    """A fit to the unit rows of a gallery, which can also leave each of them out.

    `embeddings` reads rows int64 (n,) -> float32 (n, D), a part at a time; `codes` int64 (N,) are the classes of all
    rows, from 0 without a gap. `shares` float64 (C,) is the weight of a photo of each class; by default classes have
    the same sum. `likeness` is the mean cosine of two photos of a class; by default that of the gallery's classes.
    `sums` float64 (C, D) are those of each class's rows, `counts` int64 (C,) their numbers; `inverse` float64 (D, D) is
    that of the rows' second moment.
    """

    def __init__(
        self,
        embeddings: Callable[[Rows], Embeddings],
        codes: Rows,
        shares: Values | None = None,
        likeness: float | None = None,
    ) -> None:
        self.counts = np.bincount(codes)
        self._shares = len(codes) / len(self.counts) / self.counts if shares is None else shares
        dim = embeddings(np.arange(1)).shape[1]
        self.sums: Values = np.zeros((len(self.counts), dim))
        moment: Values = RIDGE * np.eye(dim)
        for start in range(0, len(codes), ROWS_PER_PART):
            rows = np.arange(start, min(start + ROWS_PER_PART, len(codes)))
            part, own = embeddings(rows).astype(np.float64), codes[rows]
            np.add.at(self.sums, own, part)
            moment += part.T @ (part * self._shares[own, None])
        self.inverse: Values = np.asarray(np.linalg.inv(moment), np.float64)
        self.likeness = mean_likeness(self.sums, self.counts) if likeness is None else likeness
        self._means = of_unit_length(self.sums, self.counts, self.likeness)
        self._to_means: Values = (self.sums * self._shares[:, None]).T @ self._means

    def weights(self) -> ClassWeights:
        """What a server needs of the fit."""
        return ClassWeights((self._means @ self._to_means.T @ self.inverse).astype(np.float32))

    def scores_without(self, queries: Embeddings, own: Rows, codes: Rows) -> Values:
        """As `ClassWeights.scores` for rows of the gallery, of the classes `own` int64 (n,), as if each were not in it.

        The shares of classes stay. A class of which no photo is left has -inf.
        """
        asked = queries.astype(np.float64)
        at = asked @ self.inverse
        leverage = self._shares[own] * (at * asked).sum(axis=1)
        at /= 1 - leverage[:, None]  # Sherman & Morrison: the inverse without the row
        others, left = self.sums[own] - asked, self.counts[own] - 1
        mean = of_unit_length(others, left, self.likeness)
        mapped = at @ self._to_means
        mapped -= (self._shares[own] * (at * self.sums[own]).sum(axis=1))[:, None] * self._means[own]
        mapped += (self._shares[own] * (at * others).sum(axis=1))[:, None] * mean
        found = np.einsum("nd,nkd->nk", mapped, self._means[codes])
        of_own = np.where(left > 0, (mapped * mean).sum(axis=1), -np.inf)
        return np.where(codes == own[:, None], of_own[:, None], found)


def mean_likeness(sums: Values, counts: Rows) -> float:
    """The mean cosine of two photos of a class, from the sums of the classes' unit rows float64 (C, D)."""
    several = counts > 1
    if not several.any():
        return LIKENESS
    alike = (sums[several] ** 2).sum(axis=1) - counts[several]
    return float((alike / (counts * (counts - 1))[several]).mean())


def of_unit_length(sums: Values, counts: Rows, likeness: float) -> Values:
    """Means (n, D) divided by the length that they would have with endless photos.

    A mean of few photos is longer by chance. The squared length without that is the mean cosine of the pairs.
    """
    alike = (sums**2).sum(axis=1) - counts + PRIOR_PAIRS * likeness
    squared = np.maximum(alike / (counts * (counts - 1) + PRIOR_PAIRS), LEAST_LIKENESS)
    length: Values = np.maximum(counts, 1) * np.sqrt(squared)
    return sums / length[:, None]
