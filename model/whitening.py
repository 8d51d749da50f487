"""Whitening: a linear map between pooling and the L2 norm that weakens what says nothing about the class.

The map is C^(-exponent / 2), where C is the covariance of pooled features within classes (WCCN: Hatch, Kajarekar &
Stolcke, "Within-class covariance normalization for SVM-based speaker recognition", Interspeech 2006): the directions in
which photos of one car differ, such as colour and pose, count less. An exponent below 1 and a shrunk covariance (Ledoit
& Wolf, 2004) keep directions in which few photos differ from being blown up.
"""

from dataclasses import dataclass

import numpy as np

from model.errors import DataInvalid
from model.types import Embeddings, Rows

MIN_CLASSES = 10
"""With fewer classes the covariance within them says more about these cars than about photos of cars."""


@dataclass(frozen=True, slots=True)
class WhiteningOptions:
    """`shrink` is the share of the identity, times the mean variance, in the covariance; `exponent` 1 whitens fully."""

    shrink: float = 0.3
    exponent: float = 0.75


def fit_whitening(features: Embeddings, classes: Rows, options: WhiteningOptions | None = None) -> Embeddings:
    """Fits the map on pooled features float32 (n, D) with class codes int64 (n,) -> float32 (D, D), symmetric.

    Raises DataInvalid when fewer than ten classes have two photos, and when photos of a class do not differ.
    """
    options = options or WhiteningOptions()
    counts = np.bincount(classes)
    if not enough_classes(classes):
        raise DataInvalid(f"Whitening needs at least {MIN_CLASSES} classes with two photos.")
    used = counts[classes] >= 2
    rows, codes = features[used].astype(np.float64), classes[used]
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, codes, rows)
    deviations = rows - sums[codes] / counts[codes, None]
    covariance = deviations.T @ deviations / (len(rows) - (counts >= 2).sum())
    if not np.trace(covariance) > 0:  # NaN too
        raise DataInvalid(
            "The features of photos of one class are all the same, or not finite; whiten on photos that differ, and if "
            "they do, train with a lower learning rate."
        )
    return _power(covariance, options)


def enough_classes(classes: Rows) -> bool:
    """True where at least ten classes have two photos or more: class codes int64 (n,), one a photo."""
    return bool((np.bincount(classes) >= 2).sum() >= MIN_CLASSES)


def _power(covariance: np.ndarray[tuple[int, int], np.dtype[np.float64]], options: WhiteningOptions) -> Embeddings:
    """C^(-exponent / 2), with C shrunk, scaled so that the mean variance is kept."""
    values, vectors = np.linalg.eigh(covariance)
    scale = values.mean()
    shrunk = (1 - options.shrink) * values / scale + options.shrink
    matrix: Embeddings = (vectors * shrunk ** (-options.exponent / 2) @ vectors.T).astype(np.float32)
    return matrix
