"""Embeddings on a plane: the main directions, and what is called on the way."""

import importlib.util

import numpy as np
import pytest

from indexer.benchmark import projection
from indexer.benchmark.projection import principal, project
from tests.unit.indexer.sets import unit


def test_the_first_direction_is_the_one_in_which_rows_differ_most() -> None:
    rows = np.array([[-2, 0, 1], [2, 0, 1], [0, 1, 1], [0, -1, 1]], np.float32)
    assert principal(rows, 2).round(6).tolist() == [[-2, 0], [2, 0], [0, 1], [0, -1]]
    assert principal(rows, 9).shape == (4, 3)


def test_few_photos_are_placed_by_their_main_directions_within_the_unit_square() -> None:
    made = project(unit(np.random.default_rng(0).normal(size=(20, 8))))
    assert (made.method, made.rows.tolist()) == ("PCA", list(range(20)))
    assert (made.points.min(axis=0).tolist(), made.points.max(axis=0).tolist()) == ([0, 0], [1, 1])
    same = project(unit(np.ones((3, 8))))
    assert np.isfinite(same.points).all()


def test_of_many_photos_some_are_placed_at_even_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "MOST_PHOTOS", 4)
    made = project(unit(np.random.default_rng(0).normal(size=(10, 8))))
    assert made.rows.tolist() == [0, 2, 5, 7]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openTSNE") is None, reason="openTSNE (the extra report) is not installed")
def test_t_sne_keeps_clusters_apart_and_can_be_stopped() -> None:
    random = np.random.default_rng(0)
    codes = np.repeat(np.arange(4), 40)
    rows = unit(random.normal(size=(4, 32))[codes] + 0.1 * random.normal(size=(160, 32)))
    called = []
    made = project(rows, lambda: called.append(True))
    assert made.method == "t-SNE"
    assert len(called) > 10
    middles = np.stack([made.points[codes == code].mean(axis=0) for code in range(4)])
    spread = max(np.linalg.norm(made.points[codes == code] - middles[code], axis=1).max() for code in range(4))
    gaps = np.linalg.norm(middles[:, None] - middles[None], axis=2)[~np.eye(4, dtype=bool)]
    assert gaps.min() > 2 * spread

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        project(rows, stop)
