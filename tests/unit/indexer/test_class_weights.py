"""A class as a whole: what differs within classes counts less, small classes are not at a disadvantage."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.class_weights import ClassFit, Values
from model.types import Embeddings, Rows


def unit(rows: npt.ArrayLike) -> Embeddings:
    values = np.asarray(rows, np.float64)
    found: Embeddings = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return found


def gallery(counts: list[int], dim: int, noise: float, seed: int) -> tuple[Embeddings, Rows, Values]:
    """Unit rows around a random middle of each class; also the middles."""
    random = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(counts)), counts)
    middles = random.normal(size=(len(counts), dim))
    return unit(middles[codes] + noise * random.normal(size=(len(codes), dim))), codes, middles


def test_a_direction_in_which_photos_of_every_class_differ_counts_little() -> None:
    # Two classes, told apart by the first value; the second one only says which way the car faces.
    rows = unit([[0.3, 1], [0.3, -1], [-0.3, 1], [-0.3, -1]])
    weights = ClassFit(rows.__getitem__, np.array([0, 0, 1, 1])).weights()
    across, along = weights.rows[0]
    assert across > 0
    assert along == pytest.approx(0, abs=1e-6)
    asked = unit([[0.05, 1]])
    first, second = weights.scores(asked, np.array([[0, 1]]))[0]
    assert first == pytest.approx(-second, abs=1e-6)
    assert first > 0


def test_a_class_with_few_photos_is_found_about_as_often_as_one_with_many() -> None:
    rows, codes, middles = gallery([3] * 10 + [30] * 10, 64, 1.0, seed=0)
    asked = np.repeat(np.arange(20), 50)
    queries = unit(middles[asked] + np.random.default_rng(1).normal(size=(len(asked), 64)))
    every = np.tile(np.arange(20), (len(asked), 1))
    told = ClassFit(rows.__getitem__, codes).weights().scores(queries, every).argmax(axis=1)
    few, many = (told == asked)[asked < 10].mean(), (told == asked)[asked >= 10].mean()
    assert few > 0.9
    assert many > 0.9
    share_told_few = (told < 10).mean()  # neither kind is answered more often than it is asked for
    assert share_told_few == pytest.approx(0.5, abs=0.06)


def test_one_photo_of_each_class_is_enough_for_a_fit() -> None:
    rows = unit(np.eye(3))
    fitted = ClassFit(rows.__getitem__, np.arange(3))
    assert fitted.weights().scores(rows, np.tile(np.arange(3), (3, 1))).argmax(axis=1).tolist() == [0, 1, 2]
    alone = fitted.scores_without(rows[:1], np.array([0]), np.array([[0, 1]]))
    assert np.isneginf(alone[0, 0])  # nothing is left of its class
    assert np.isfinite(alone[0, 1])


def test_rows_are_read_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, codes, _ = gallery([4, 7, 9], 8, 0.5, seed=3)
    whole = ClassFit(rows.__getitem__, codes).weights().rows
    monkeypatch.setattr("indexer.class_weights.ROWS_PER_PART", 6)
    asked: list[int] = []

    def read(wanted: Rows) -> Embeddings:
        asked.append(len(wanted))
        return rows[wanted]

    assert ClassFit(read, codes).weights().rows == pytest.approx(whole, abs=1e-6)
    assert max(asked) == 6


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(2, 9), min_size=1, max_size=5))
def test_leaving_a_row_out_is_the_fit_without_it(seed: int, counts: list[int]) -> None:
    rows, codes, _ = gallery([*counts, 2], 6, 0.7, seed)
    shares = np.random.default_rng(seed).uniform(0.5, 2, len(counts) + 1)
    every = np.arange(len(counts) + 1)[None]
    fitted = ClassFit(rows.__getitem__, codes, shares)
    left_out = fitted.scores_without(rows[:1], codes[:1], every)[0]
    without = ClassFit(rows[1:].__getitem__, codes[1:], shares, likeness=fitted.likeness)
    assert left_out == pytest.approx(without.weights().scores(rows[:1], every)[0], abs=1e-4)
