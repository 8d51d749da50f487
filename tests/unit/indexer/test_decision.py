"""Which class the neighbours speak for: the nearest photo counts, and the class as a whole."""

import math

import numpy as np
import pytest

from indexer.decision import decide


def test_a_class_that_is_near_as_a_whole_wins_over_one_near_photo() -> None:
    codes, cosines = np.array([[0, 1, 1]]), np.array([[0.9, 0.86, 0.8]], np.float32)
    decisions = decide(codes, cosines, np.array([[0.3, 0.4, 0.4]]))
    assert decisions.classes.tolist() == [1]
    assert decisions.agreement[0] == pytest.approx(2 / 3)
    # The scores are 0.9 + 2 x 0.3 and 0.86 + 2 x 0.4.
    assert decisions.lead[0] == pytest.approx(1 / (1 + math.exp((1.5 - 1.66) / 0.05)), abs=1e-6)
    assert decisions.nearest[0] == 0


def test_with_one_class_among_the_neighbours_every_signal_is_one() -> None:
    decisions = decide(np.array([[3, 3]]), np.array([[0.9, 0.7]], np.float32), np.array([[0.8, 0.8]]))
    assert [values.tolist() for values in decisions] == [[3], [1], [1], [1]]


def test_rows_that_do_not_exist_change_nothing() -> None:
    few = decide(np.array([[1, 0, -1]]), np.array([[0.9, 0.8, -np.inf]], np.float32), np.array([[0.5, 0.5, -np.inf]]))
    whole = decide(np.array([[1, 0]]), np.array([[0.9, 0.8]], np.float32), np.array([[0.5, 0.5]]))
    assert [value.tolist() for value in few] == [value.tolist() for value in whole]


def test_of_equal_classes_the_one_with_the_nearer_photo_wins() -> None:
    decisions = decide(np.array([[5, 2]]), np.array([[0.75, 0.25]], np.float32), np.array([[0.25, 0.5]]))
    assert (decisions.classes.tolist(), decisions.lead.tolist(), decisions.nearest.tolist()) == ([5], [0.5], [1])
