"""Embeddings on a plane, to look at: t-SNE where openTSNE is installed, else the two main directions (PCA)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.types import Embeddings, Rows

MOST_PHOTOS = 5_000
"""A plane holds no more to look at, and t-SNE of so many takes less than half a minute of a core."""

DIRECTIONS = 50
"""Main directions that t-SNE starts from: it only needs to know who is near whom."""

FEWEST_PHOTOS = 100
"""For t-SNE: of fewer, every photo is near every other one."""

ITERATIONS_PER_CALL = 25

Points = npt.NDArray[np.float64]


class Projection(NamedTuple):
    """Places of some rows, int64 (m,), on a plane: float64 (m, 2), each axis from 0 to 1; `method` is for people."""

    rows: Rows
    points: Points
    method: str


def project(embeddings: Embeddings, before_step: Callable[[], None] = lambda: None) -> Projection:
    """Unit rows float32 (n, D) -> places of MOST_PHOTOS of them or fewer; `before_step` is called often, may raise."""
    count = min(len(embeddings), MOST_PHOTOS)
    rows = np.arange(count) * len(embeddings) // count
    main = principal(embeddings[rows], DIRECTIONS)
    before_step()
    found = _t_sne(main, before_step) if count >= FEWEST_PHOTOS else None
    points, method = (main[:, :2], "PCA") if found is None else (found, "t-SNE")
    low, high = points.min(axis=0), points.max(axis=0)
    return Projection(rows, (points - low) / np.where(high > low, high - low, 1), method)


def principal(rows: Embeddings, most: int) -> Points:
    """Rows (n, D) along their main directions, at most so many: float64 (n, most).

    The sign of a direction is that of its largest value, so that equal rows always give equal places.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)  # in rising order
    chosen = directions[:, ::-1][:, :most]
    largest = np.abs(chosen).argmax(axis=0)
    along: Points = centred @ (chosen * np.sign(chosen[largest, np.arange(chosen.shape[1])]))
    return along


def _t_sne(main: Points, before_step: Callable[[], None]) -> Points | None:
    """Rows (m, d) -> (m, 2) by t-SNE; None without the extra "report"."""
    try:
        from openTSNE import TSNE
    except ModuleNotFoundError:
        return None

    def told(*_state: object) -> None:
        before_step()

    made = TSNE(
        initialization="pca",
        n_jobs=1,  # threads that wait for each other hold up whoever searches, and beside them it is no faster
        random_state=0,
        callbacks=told,
        callbacks_every_iters=ITERATIONS_PER_CALL,
    )
    return np.asarray(made.fit(main), np.float64)
