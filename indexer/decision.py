"""The class of a photo, decided from its nearest photos, and signals of how sure that is.

Each class among the ten nearest photos has a score: the mean of the cosine to its nearest photo and of the cosine to
the mean of all its photos. The class with the highest score is the answer. The second cosine lets a class that is near
as a whole win over one photo that is near by chance (nearest class mean: Mensink et al., "Distance-based image
classification", TPAMI 2013).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.types import Embeddings, Rows

NEIGHBOURS = 10
MEAN_WEIGHT = 0.5
LEAD_TEMPERATURE = 0.02
Values = npt.NDArray[np.float64]


class Decisions(NamedTuple):
    """The answers to n queries, and three signals of how sure they are.

    `classes` int64 (n,) are codes. `agreement` is the share of the neighbours that are of the class. `lead` is the
    class's part of softmax(score / 0.02) over the scores of all classes among the neighbours. `nearest` is 1 where the
    nearest photo is of the class, and 0 elsewhere.
    """

    classes: Rows
    agreement: Values
    lead: Values
    nearest: Values

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Decisions":
        """Those of some queries, bool (n,)."""
        return Decisions(self.classes[chosen], self.agreement[chosen], self.lead[chosen], self.nearest[chosen])

    @property
    def signals(self) -> Values:
        """What the probability is computed from: float64 (n, 3)."""
        return np.stack([self.agreement, self.lead, self.nearest], axis=1)


class ClassMeans:
    """The sum and the number of each class's rows, float32 (C, D) and int64 (C,); a sum points to the class mean."""

    def __init__(self, sums: Embeddings, counts: Rows) -> None:
        self.sums, self.counts = sums, counts

    @classmethod
    def of(cls, embeddings: Embeddings, codes: Rows) -> "ClassMeans":
        """Unit rows float32 (n, D) with class codes int64 (n,) from 0."""
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        return cls(np.add.reduceat(embeddings[order], starts, axis=0), np.bincount(codes))

    def cosines(self, queries: Embeddings, codes: Rows, own: Rows | None = None) -> Values:
        """Cosines of unit queries float32 (n, D) to the means of some classes, int64 (n, K) -> float64 (n, K).

        `own` int64 (n,) are the classes of queries that are rows of the gallery: each is taken from the mean of its own
        class. A class of which nothing is left, and the code -1, have -inf.
        """
        sums = self.sums[codes].astype(np.float64)
        counts = np.where(codes >= 0, self.counts[codes], 0)
        if own is not None:
            mine = codes == own[:, None]
            sums -= np.where(mine[:, :, None], queries[:, None, :], 0)
            counts = counts - mine
        lengths = np.linalg.norm(sums, axis=2)
        products = np.einsum("nd,nkd->nk", queries.astype(np.float64), sums)
        found: Values = np.where((counts > 0) & (lengths > 0), products / np.maximum(lengths, 1e-12), -np.inf)
        return found


def decide(codes: Rows, cosines: npt.NDArray[np.float32], to_means: Values) -> Decisions:
    """Decides from each query's nearest rows, best first.

    codes int64 (n, K) are their classes, -1 where there is no row; cosines (n, K); to_means (n, K) as from
    `ClassMeans.cosines`. Of equal classes the one with the nearer photo wins.
    """
    there = codes >= 0
    scores = np.where(there, cosines, -np.inf).astype(np.float64)
    same = (codes[:, :, None] == codes[:, None, :]) & there[:, None, :]
    nearest_of_class = np.where(same, scores[:, None, :], -np.inf).max(axis=2)
    mean = np.where(np.isneginf(to_means), nearest_of_class, to_means)  # the photo itself, of a class with one photo
    of_class = np.where(there, (1 - MEAN_WEIGHT) * nearest_of_class + MEAN_WEIGHT * mean, -np.inf)
    best, row = of_class.argmax(axis=1), np.arange(len(codes))
    chosen = codes[row, best]
    once = ~np.tril(same, -1).any(axis=2)  # the first neighbour of each class stands for it
    weights = np.where(once, np.exp((of_class - of_class[row, best][:, None]) / LEAD_TEMPERATURE), 0)
    return Decisions(
        classes=chosen,
        agreement=(codes == chosen[:, None]).sum(axis=1) / there.sum(axis=1),
        lead=1 / weights.sum(axis=1),
        nearest=(codes[:, 0] == chosen).astype(np.float64),
    )
