"""The class of a photo, decided from its nearest photos, and signals of how sure that is.

Each class among the ten nearest photos has a score: the cosine to its nearest photo, plus twice the score of the class
as a whole (`indexer/class_weights.py`). The class with the highest score is the answer. The second part lets a class
that fits as a whole win over one photo that is near by chance.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.class_weights import Values
from model.types import Rows

NEIGHBOURS = 10
WHOLE_CLASS = 2.0
LEAD_TEMPERATURE = 0.05


class Decisions(NamedTuple):
    """The answers to n queries, and three signals of how sure they are.

    `classes` int64 (n,) are codes, -1 where no neighbour has a class; the signals are then 0. `agreement` is the share
    of the neighbours with a class that are of this one. `lead` is the class's part of softmax(score / 0.05) over the
    scores of all classes among the neighbours. `nearest` is 1 where the nearest photo is of the class, and 0 elsewhere.
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


def decide(codes: Rows, cosines: npt.NDArray[np.float32], of_classes: Values) -> Decisions:
    """Decides from each query's nearest rows, best first.

    codes int64 (n, K) are their classes, -1 where there is no row or it has none; cosines (n, K); of_classes (n, K) as
    from `ClassWeights.scores`. Of equal classes the one with the nearer photo wins.
    """
    there = codes >= 0
    same = (codes[:, :, None] == codes[:, None, :]) & there[:, None, :]
    nearest_of_class = np.where(same, cosines[:, None, :], -np.inf).max(axis=2).astype(np.float64)
    scores = np.where(there, nearest_of_class + WHOLE_CLASS * of_classes, -np.inf)
    best, row = scores.argmax(axis=1), np.arange(len(codes))
    chosen = codes[row, best]
    once = ~np.tril(same, -1).any(axis=2)  # the first neighbour of each class stands for it
    some = there.any(axis=1)
    highest = np.where(some, scores[row, best], 0)
    weights = np.where(once, np.exp((scores - highest[:, None]) / LEAD_TEMPERATURE), 0)
    return Decisions(
        classes=chosen,
        agreement=some * (codes == chosen[:, None]).sum(axis=1) / np.maximum(there.sum(axis=1), 1),
        lead=some / np.where(some, weights.sum(axis=1), 1),
        nearest=some * (codes[:, 0] == chosen).astype(np.float64),
    )
