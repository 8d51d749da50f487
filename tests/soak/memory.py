"""Whether a process grows with the requests that it answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCKS = 10
STUDENT_95 = 2.306
"""Of Student's distribution with BLOCKS - 2 degrees of freedom: 95% lie between this and its negative."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory of a process, after so many answers."""

    answers: float
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes an answer, as a 95% interval, and how far the highest sample lies above their mean."""

    low: float
    high: float
    above_mean_bytes: float

    def leaks(self, bytes_an_answer: float, most_above_mean_bytes: float) -> bool:
        """Whether it grows by more than so much an answer for certain, or was ever so far above its mean."""
        grows = self.low > 0 and self.high >= bytes_an_answer
        return grows or self.above_mean_bytes > most_above_mean_bytes


def growth_of(samples: Sequence[Sample]) -> Growth:
    """The slope through the means of BLOCKS equal stretches; neighbouring samples alone are not independent."""
    taken = np.array([(sample.answers, sample.resident_bytes) for sample in samples], np.float64)
    blocks = np.array([block.mean(axis=0) for block in np.array_split(taken, BLOCKS)])
    answers, resident = blocks[:, 0] - blocks[:, 0].mean(), blocks[:, 1] - blocks[:, 1].mean()
    spread = (answers**2).sum()
    slope = (answers * resident).sum() / spread
    error = np.sqrt(((resident - slope * answers) ** 2).sum() / (BLOCKS - 2) / spread)
    above = taken[:, 1].max() - taken[:, 1].mean()
    return Growth(float(slope - STUDENT_95 * error), float(slope + STUDENT_95 * error), float(above))
