"""Retrieval metrics over neighbour lists, in numpy: top-1, recall@k, mAP@R, confusions, bootstrap intervals.

The score of two embeddings is their inner product, summed in float64 and rounded to float32 (`exact_scores`). Of equal
scores the lowest row wins. Matrix products only find candidates: their float32 sums depend on the shape of the product,
so that copies of one photo would not tie.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.types import Embeddings, Rows

CONFIDENCE = 0.95
RESAMPLES = 10_000


def exact_scores(queries: Embeddings, candidates: Embeddings) -> Embeddings:
    """Cosines of unit rows, the same bits however many are computed together.

    queries float32 (B, D), candidates float32 (B, m, D) -> float32 (B, m).
    """
    products = candidates.astype(np.float64) * queries[:, None, :].astype(np.float64)
    scores: Embeddings = products.sum(axis=-1).astype(np.float32)
    return scores


def score_tolerance(dim: int) -> float:
    """An upper bound of the error of a float32 inner product of unit vectors, in any order of summation.

    The bound n*u of Higham, "Accuracy and Stability of Numerical Algorithms" (2002), section 3.1, with a factor for
    the rounding of the result.
    """
    return (dim + 2) * float(np.finfo(np.float32).eps) / 2


def leave_one_out_nearest(embeddings: Embeddings, chunk: int = 512) -> Rows:
    """The nearest other row of each row: unit rows float32 (n, D) -> int64 (n,); n must be at least 2."""
    count, dim = embeddings.shape
    if count < 2:
        raise ValueError("leave-one-out needs at least two rows")
    nearest = np.empty(count, np.int64)
    for start in range(0, count, chunk):
        block = embeddings[start : start + chunk]
        scores = block @ embeddings.T
        own = np.arange(len(block))
        scores[own, start + own] = -np.inf
        candidates = scores >= scores.max(axis=1, keepdims=True) - 2 * score_tolerance(dim)
        nearest[start : start + chunk] = candidates.argmax(axis=1)
        for row in np.flatnonzero(candidates.sum(axis=1) > 1):
            among = np.flatnonzero(candidates[row])
            exact = exact_scores(block[row : row + 1], embeddings[among][None])[0]
            nearest[start + row] = among[exact.argmax()]  # the first maximum: the lowest row
    return nearest


class Interval(NamedTuple):
    """A 95% bootstrap interval of a share between 0 and 1."""

    low: float
    high: float


def first_relevant_rank(relevant: npt.NDArray[np.bool_]) -> Rows:
    """Rank, from 1, of the first neighbour of the query's class, 0 where there is none: bool (n, K) -> int64 (n,).

    >>> first_relevant_rank(np.array([[False, True, True], [False, False, False]])).tolist()
    [2, 0]
    """
    if relevant.shape[1] == 0:
        return np.zeros(len(relevant), np.int64)
    return np.where(relevant.any(axis=1), relevant.argmax(axis=1) + 1, 0)


def recall_at(first_rank: Rows, k: int) -> float:
    """Share of queries with a neighbour of their class among the first k; `first_rank` as from `first_relevant_rank`.

    >>> recall_at(np.array([2, 0, 1, 9]), 5)
    0.5
    """
    return float(((first_rank > 0) & (first_rank <= k)).mean())


def average_precision_at_r(relevant: npt.NDArray[np.bool_], relevant_count: Rows) -> npt.NDArray[np.float64]:
    """AP@R of each query, of Musgrave et al., "A Metric Learning Reality Check" (ECCV 2020).

    1/R * sum over i <= R of precision(i) * relevant(i), where R = relevant_count int64 (n,) is the number of neighbours
    of its class that a query could have; relevant bool (n, K), K >= max R. 0 where R is 0, as top-1 counts it.

    >>> average_precision_at_r(np.array([[True, False, True]]), np.array([2])).tolist()
    [0.5]
    """
    rank = np.arange(1, relevant.shape[1] + 1)
    within = relevant & (rank <= relevant_count[:, None])
    total = (within.cumsum(axis=1) / rank * within).sum(axis=1)
    scores: npt.NDArray[np.float64] = np.zeros(len(total))
    np.divide(total, relevant_count, out=scores, where=relevant_count > 0)
    return scores


def bootstrap_over_photos(correct: npt.NDArray[np.bool_], seed: int = 0) -> Interval:
    """Percentile interval of the mean over resampled photos, which for independent photos is a binomial draw."""
    count = len(correct)
    return percentile_interval(np.random.default_rng(seed).binomial(count, correct.mean(), RESAMPLES) / count)


def bootstrap_over_classes(values: npt.NDArray[np.bool_ | np.float64], classes: Rows, seed: int = 0) -> Interval:
    """Percentile interval of the mean over resampled classes: the honest one for classes never seen.

    values bool or float64 (n,), classes int64 (n,) codes from 0.
    """
    totals = np.bincount(classes)
    sums = np.bincount(classes, weights=values)
    random = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 500):
        drawn = random.integers(0, len(totals), size=(500, len(totals)))
        means[start : start + 500] = sums[drawn].sum(axis=1) / totals[drawn].sum(axis=1)
    return percentile_interval(means)


def percentile_interval(means: npt.NDArray[np.float64]) -> Interval:
    """The central 95% of resampled means."""
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(low=float(low), high=float(high))


def most_confused(classes: Sequence[str], nearest: Sequence[str], most: int = 20) -> list[tuple[str, str, int]]:
    """The most frequent (query class, nearest class, count) of wrong answers; ties in alphabetical order."""
    wrong = Counter((query, found) for query, found in zip(classes, nearest, strict=True) if query != found)
    ordered = sorted(wrong.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(query, found, count) for (query, found), count in ordered[:most]]
