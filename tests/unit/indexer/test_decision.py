"""Which class the neighbours speak for: the nearest photo and the mean of the class count alike."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.decision import ClassMeans, decide
from model.types import Embeddings


def unit_rows(count: int, dim: int, seed: int) -> Embeddings:
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    unit: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def test_a_class_that_is_near_as_a_whole_wins_over_one_near_photo() -> None:
    codes, cosines = np.array([[0, 1, 1]]), np.array([[0.9, 0.86, 0.8]], np.float32)
    decisions = decide(codes, cosines, np.array([[0.6, 0.8, 0.8]]))
    assert decisions.classes.tolist() == [1]
    assert decisions.agreement[0] == pytest.approx(2 / 3)
    # The means of the two cosines are 0.75 and 0.83.
    assert decisions.lead[0] == pytest.approx(1 / (1 + math.exp((0.75 - 0.83) / 0.02)), abs=1e-6)
    assert decisions.nearest[0] == 0


def test_with_one_class_among_the_neighbours_every_signal_is_one() -> None:
    decisions = decide(np.array([[3, 3]]), np.array([[0.9, 0.7]], np.float32), np.array([[0.8, 0.8]]))
    assert [values.tolist() for values in decisions] == [[3], [1], [1], [1]]


def test_rows_that_do_not_exist_change_nothing() -> None:
    few = decide(np.array([[1, 0, -1]]), np.array([[0.9, 0.8, -np.inf]], np.float32), np.array([[0.5, 0.5, -np.inf]]))
    whole = decide(np.array([[1, 0]]), np.array([[0.9, 0.8]], np.float32), np.array([[0.5, 0.5]]))
    assert [value.tolist() for value in few] == [value.tolist() for value in whole]


def test_of_equal_classes_the_one_with_the_nearer_photo_wins() -> None:
    decisions = decide(np.array([[5, 2]]), np.array([[0.75, 0.5]], np.float32), np.array([[0.5, 0.75]]))
    assert (decisions.classes.tolist(), decisions.lead.tolist(), decisions.nearest.tolist()) == ([5], [0.5], [1])


def test_a_photo_of_the_gallery_is_left_out_of_the_mean_of_its_own_class() -> None:
    rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    means = ClassMeans.of(rows, np.array([0, 0, 1]))
    cosines = means.cosines(rows[:1], np.array([[0, 1]]))
    assert cosines[0] == pytest.approx([math.sqrt(0.5), 0.6])
    left_out = means.cosines(rows[:1], np.array([[0, 1]]), own=np.array([0]))
    assert left_out[0] == pytest.approx([0.0, 0.6])  # only the row at a right angle is left
    assert np.isneginf(means.cosines(rows[2:], np.array([[1, -1]]), own=np.array([1]))).all()  # nothing is left


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), photos=st.integers(4, 40), classes=st.integers(1, 6))
def test_leaving_a_row_out_is_the_gallery_without_it(seed: int, photos: int, classes: int) -> None:
    rows = unit_rows(photos, 5, seed)
    codes = np.append(np.arange(classes), np.random.default_rng(seed).integers(0, classes, photos))[:photos]
    classes = int(codes.max()) + 1
    asked = np.arange(classes)[None]
    left_out = ClassMeans.of(rows, codes).cosines(rows[-1:], asked, own=codes[-1:])[0]
    for code in range(classes):
        others = rows[:-1][codes[:-1] == code]
        if len(others):
            mean = others.astype(np.float64).sum(axis=0)
            assert left_out[code] == pytest.approx(float(rows[-1] @ mean / np.linalg.norm(mean)), abs=1e-4)
        else:
            assert np.isneginf(left_out[code])
