"""The probability that a decision is right, fitted to a gallery by leaving out each of its photos once.

The probability is a logistic regression on three signals of a decision. It is fitted on the gallery's photos of classes
with at least ten, because leaving one photo out of a class of three changes the class too much. It holds only for
photos whose class is in the gallery.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from indexer.class_weights import ClassFit, Values
from indexer.decision import NEIGHBOURS, Decisions, decide
from indexer.stores.base import VectorStore
from model.logistic import fit_logistic, sigmoid
from model.types import Embeddings, Rows

SAMPLED = 5_000
MIN_PHOTOS = 200
"""With fewer photos four parameters would follow chance."""

PHOTOS_OF_CLASS = 10
"""With five photos a class the calibration error on new photos was 0.12, and 0.05 with the fit that ships."""

QUERIES_PER_CALL = 256
"""The rows of the classes of 5,000 queries at once would take 1 GB."""

RIDGE = 1.0
BINS = 10
CURVE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
PRECISIONS = tuple(round(0.5 + 0.01 * step, 2) for step in range(50))

Right = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights of the signals and a bias; `thresholds` are the lowest probabilities that kept each of PRECISIONS.

    `photos` is the number of photos that it was fitted on, 0 for the one that ships. `top1`, `auroc` (of right against
    wrong decisions) and `error` (the expected calibration error in ten bins) are of these photos. A precision that was
    never kept has the threshold 1.
    """

    weights: tuple[float, float, float]
    bias: float
    photos: int = 0
    top1: float | None = None
    auroc: float | None = None
    error: float | None = None
    thresholds: tuple[float, ...] = ()

    def probabilities(self, decisions: Decisions) -> Values:
        """The probability that each decision is right: float64 (n,)."""
        return sigmoid(decisions.signals @ np.array(self.weights) + self.bias)

    def threshold(self, precision: float) -> float:
        """The lowest probability at which decisions are right as often as wanted; with the shipped fit that itself."""
        if not self.thresholds:
            return precision
        above = [limit for kept, limit in zip(PRECISIONS, self.thresholds, strict=True) if kept >= precision - 1e-9]
        return above[0] if above else 1.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for a value that is not one of `to_json`."""
        first, second, third = map(float, value["weights"])
        thresholds = tuple(map(float, value["thresholds"]))
        read = cls(**{**value, "weights": (first, second, third), "thresholds": thresholds})
        if not np.isfinite([*read.weights, read.bias, *thresholds]).all() or len(thresholds) not in (
            0,
            len(PRECISIONS),
        ):
            raise ValueError("a number is missing or not finite")
        if read.photos and read.error is None:
            raise ValueError("error is missing")
        return read


def leave_one_out(
    store: VectorStore, embeddings: Embeddings, rows: Rows, codes: Rows, classes: ClassFit
) -> tuple[Decisions, Right]:
    """Decides for some rows of a gallery as if they were not in it, and whether each decision is right.

    embeddings float32 (n, D) are those of `rows` int64 (n,); `codes` int64 (N,) are the classes of all rows.
    """
    parts = []
    for start in range(0, max(len(rows), 1), QUERIES_PER_CALL):
        part = slice(start, start + QUERIES_PER_CALL)
        near = store.search(embeddings[part], NEIGHBOURS, exclude_rows=rows[part])
        found = np.where(near.rows >= 0, codes[near.rows], -1)
        parts.append(decide(found, near.scores, classes.scores_without(embeddings[part], codes[rows[part]], found)))
    decisions = Decisions(*map(np.concatenate, zip(*parts, strict=True)))
    return decisions, decisions.classes == codes[rows]


def sampled_rows(codes: Rows, most: int = SAMPLED, photos: int = PHOTOS_OF_CLASS) -> Rows:
    """Up to `most` rows, int64 (n,), at even steps among those of classes with so many photos."""
    usable = np.flatnonzero(np.bincount(codes)[codes] >= photos)
    count = min(most, len(usable))
    return usable[np.arange(count) * len(usable) // max(count, 1)]


def fit(decisions: Decisions, right: Right) -> Calibration:
    """Fits the logistic regression, with a small ridge so that separable sets stay finite.

    Falls back to the shipped fit for fewer than 200 decisions.
    """
    if len(right) < MIN_PHOTOS:
        return SHIPPED
    signals = decisions.signals
    middle, scale = signals.mean(axis=0), signals.std(axis=0) + 1e-9
    design = np.column_stack([(signals - middle) / scale, np.ones(len(right))])
    weights = fit_logistic(design, right, np.array([RIDGE, RIDGE, RIDGE, 0.01]))
    raw = weights[:3] / scale
    fitted = Calibration((float(raw[0]), float(raw[1]), float(raw[2])), float(weights[3] - raw @ middle))
    probabilities = fitted.probabilities(decisions)
    return replace(
        fitted,
        photos=len(right),
        top1=float(right.mean()),
        auroc=auroc(probabilities, right),
        error=calibration_error(probabilities, right),
        thresholds=tuple(lowest_threshold(probabilities, right, precision) for precision in PRECISIONS),
    )


SHIPPED = Calibration((5.76, 3.96, 0.49), -4.46)
"""Fitted on photos of the 28 classes of cars/val, in galleries of one, two, three and five other photos a class, and of
one to ten where classes differ.

Its calibration error in further such galleries was 0.05 to 0.07, and 0.04 with ten or twenty photos a class.
"""


class Bin(NamedTuple):
    """Decisions with a probability from `low` to `high`, and the share of them that is right (None where none is)."""

    low: float
    high: float
    photos: int
    right: float | None


class Point(NamedTuple):
    """The lowest probability that keeps a precision, and the share of decisions that have it."""

    precision: float
    threshold: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability diagram in ten bins, precision against coverage, the AUROC and the expected calibration error."""

    bins: list[Bin]
    curve: list[Point]
    auroc: float | None
    error: float

    def to_json(self) -> dict[str, Any]:
        bins, curve = [one._asdict() for one in self.bins], [point._asdict() for point in self.curve]
        return {"bins": bins, "curve": curve, "auroc": self.auroc, "error": self.error}


def reliability(probabilities: Values, right: Right) -> Reliability:
    """How often decisions with such probabilities are right: both (n,), n at least 1."""
    places = _bins(probabilities)
    photos, hits = np.bincount(places, minlength=BINS), np.bincount(places, weights=right, minlength=BINS)
    bins = [
        Bin(place / BINS, (place + 1) / BINS, int(count), float(hit / count) if count else None)
        for place, (count, hit) in enumerate(zip(photos, hits, strict=True))
    ]
    thresholds = [(precision, lowest_threshold(probabilities, right, precision)) for precision in CURVE]
    curve = [Point(precision, limit, float((probabilities >= limit).mean())) for precision, limit in thresholds]
    return Reliability(bins, curve, auroc(probabilities, right), calibration_error(probabilities, right))


def _bins(probabilities: Values) -> Rows:
    return np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)


def lowest_threshold(probabilities: Values, right: Right, precision: float) -> float:
    """The lowest probability above which, itself included, at least a share `precision` of decisions is right; else 1.

    >>> lowest_threshold(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]), 0.75)
    0.6
    """
    order = np.argsort(-probabilities, kind="stable")
    kept = right[order].cumsum() / np.arange(1, len(right) + 1)
    ends = np.append(np.diff(probabilities[order]) < 0, True)  # equal probabilities are taken or left together
    places = np.flatnonzero((kept >= precision) & ends)
    return float(probabilities[order][places[-1]]) if len(places) else 1.0


def calibration_error(probabilities: Values, right: Right) -> float:
    """The expected calibration error in ten bins of equal width (Guo et al., ICML 2017).

    >>> round(calibration_error(np.array([0.85, 0.85, 0.15, 0.15]), np.array([True, True, False, False])), 2)
    0.15
    """
    gaps = np.bincount(_bins(probabilities), weights=probabilities - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def auroc(scores: Values, positive: Right) -> float | None:
    """The share of (positive, negative) pairs in which the positive one has the higher score; ties count half.

    None where there are no such pairs.

    >>> auroc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]))
    0.875
    """
    pairs = int(positive.sum()) * int((~positive).sum())
    if not pairs:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[place]
    lowest = positive.sum() * (positive.sum() + 1) / 2
    return float((ranks[positive].sum() - lowest) / pairs)
