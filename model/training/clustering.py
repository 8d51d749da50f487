"""Clusters of embeddings, as classes of photos that have no labels."""

import numpy as np

from model.types import Embeddings

ROUNDS = 30


def cluster_centres(rows: Embeddings, count: int, seed: int) -> Embeddings:
    """Centres of spherical k-means (Dhillon & Modha, 2001): float32 (n, D), unit rows -> float32 (count, D), unit rows.

    There are fewer centres when there are fewer rows. A centre that loses its rows moves to the row that is farthest
    from its own centre.
    """
    centres = rows[_spread(rows, min(count, len(rows)), np.random.default_rng(seed))]
    for _ in range(ROUNDS):
        cosines = rows @ centres.T
        nearest = cosines.argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, rows)
        empty = np.flatnonzero(np.bincount(nearest, minlength=len(centres)) == 0)
        sums[empty] = rows[cosines.max(axis=1).argsort()[: len(empty)]]
        centres = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return centres


def _spread(rows: Embeddings, count: int, random: np.random.Generator) -> list[int]:
    """Rows to start from, each the likelier the farther from those before (Arthur & Vassilvitskii, 2007)."""
    chosen = [int(random.integers(len(rows)))]
    nearest = rows @ rows[chosen[0]]
    while len(chosen) < count:
        distances = np.maximum(1 - nearest.astype(np.float64), 1e-12)
        distances[chosen] = 0
        chosen.append(int(random.choice(len(rows), p=distances / distances.sum())))
        nearest = np.maximum(nearest, rows @ rows[chosen[-1]])
    return chosen
