"""Whitening: a linear map between pooling and the L2 norm that weakens what says nothing about the class.

The map is C^(-exponent / 2), where C is the covariance of pooled features within classes (WCCN: Hatch, Kajarekar &
Stolcke, "Within-class covariance normalization for SVM-based speaker recognition", Interspeech 2006): the directions in
which photos of one car differ, such as colour and pose, count less. An exponent below 1 and a shrunk covariance (Ledoit
& Wolf, 2004) keep directions in which few photos differ from being blown up.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from model.errors import DataInvalid
from model.types import Embeddings, Rows

MIN_CLASSES = 10
"""With fewer classes the covariance within them says more about these cars than about photos of cars."""


SHRINK = 0.3
"""The share of the identity, times the mean variance, in the covariance."""

EXPONENT = 0.75
"""1 whitens fully."""


def fit_whitening(
    features: Embeddings, classes: Rows, shrink: float = SHRINK, exponent: float = EXPONENT
) -> Embeddings:
    """Fits the map on pooled features float32 (n, D) with class codes int64 (n,) -> float32 (D, D), symmetric.

    The mean variance is kept. Raises DataInvalid when fewer than ten classes have two photos, and when photos of a
    class do not differ.
    """
    counts = np.bincount(classes)
    if not enough_classes(classes.tolist()):
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
    values, vectors = np.linalg.eigh(covariance)
    shrunk = (1 - shrink) * values / values.mean() + shrink
    matrix: Embeddings = (vectors * shrunk ** (-exponent / 2) @ vectors.T).astype(np.float32)
    return matrix


def enough_classes(labels: Iterable[str] | Iterable[int]) -> bool:
    """Whether at least ten classes have two photos, given the class of each photo."""
    return sum(count >= 2 for count in Counter(labels).values()) >= MIN_CLASSES
