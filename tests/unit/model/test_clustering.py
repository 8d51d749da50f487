"""Clusters of embeddings: the classes of photos without labels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.clustering import cluster_centres


def test_groups_that_lie_apart_are_found() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.eye(6), 20, axis=0) + 0.05 * random.normal(size=(120, 6))
    rows = (groups / np.linalg.norm(groups, axis=1, keepdims=True)).astype(np.float32)
    nearest = (rows @ cluster_centres(rows, 6, seed=1).T).argmax(axis=1).reshape(6, 20)
    assert all(len(set(group)) == 1 for group in nearest.tolist())
    assert len(set(nearest[:, 0].tolist())) == 6


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 12), size=st.integers(1, 30), seed=st.integers(0, 100))
def test_centres_are_unit_rows_and_no_more_than_there_are_rows(count: int, size: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(size, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    centres = cluster_centres(rows, count, seed)
    assert centres.shape == (min(count, size), 4)
    assert centres.dtype == np.float32
    assert np.allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    assert np.array_equal(centres, cluster_centres(rows, count, seed))
