"""Metrics with numbers worked by hand, and leave-one-out against brute force."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import model.retrieval
from model.retrieval import (
    average_precision_at_r,
    bootstrap_over_classes,
    bootstrap_over_photos,
    exact_scores,
    first_relevant_rank,
    leave_one_out_nearest,
    most_confused,
    recall_at,
    score_tolerance,
)
from model.types import Embeddings, Rows

RELEVANT = np.array(
    [
        [True, True, False, False],
        [False, True, False, True],
        [False, False, False, False],
        [False, False, False, True],
    ]
)


def brute_force(embeddings: Embeddings) -> Rows:
    """The nearest other row by every exact score; argmax takes the lowest row of equals."""
    scores = exact_scores(embeddings, np.broadcast_to(embeddings, (len(embeddings), *embeddings.shape)))
    np.fill_diagonal(scores, -np.inf)
    nearest: Rows = scores.argmax(axis=1)
    return nearest


@st.composite
def unit_rows_with_duplicates(draw: st.DrawFn) -> Embeddings:
    """A few random unit vectors, each standing in the matrix any number of times, some with one bit changed."""
    dim, distinct, count = draw(st.integers(1, 48)), draw(st.integers(1, 8)), draw(st.integers(2, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    base = random.standard_normal((distinct, dim))
    units = (base / np.linalg.norm(base, axis=1, keepdims=True)).astype(np.float32)
    rows: Embeddings = units[random.integers(0, distinct, count)]
    moved = random.random(count) < 0.3
    rows[moved, 0] = np.nextafter(rows[moved, 0], np.float32(2))
    return rows


@settings(max_examples=200, deadline=None)
@given(embeddings=unit_rows_with_duplicates(), chunk=st.sampled_from([1, 3, 512]))
def test_leave_one_out_equals_brute_force_however_it_is_cut(embeddings: Embeddings, chunk: int) -> None:
    assert np.array_equal(leave_one_out_nearest(embeddings, chunk), brute_force(embeddings))


@settings(max_examples=50)
@given(embeddings=unit_rows_with_duplicates())
def test_a_matrix_product_lies_within_the_tolerance_of_the_exact_scores(embeddings: Embeddings) -> None:
    exact = exact_scores(embeddings, np.broadcast_to(embeddings, (len(embeddings), *embeddings.shape)))
    assert np.abs(embeddings @ embeddings.T - exact).max() <= score_tolerance(embeddings.shape[1])


def test_ties_go_to_the_lowest_row_that_is_not_the_query() -> None:
    assert leave_one_out_nearest(np.eye(4, dtype=np.float32)).tolist() == [1, 0, 0, 0]
    copies = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    assert leave_one_out_nearest(copies).tolist() == [1, 0, 0, 4, 3, 3]


def test_the_nearest_of_the_seeds_four_photos() -> None:
    angles = np.array([0.0, 0.50, 0.74, 0.86])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert (leave_one_out_nearest(rows) + 1).tolist() == [2, 3, 4, 3]


@pytest.mark.parametrize("count", [0, 1])
def test_leave_one_out_needs_two_rows(count: int) -> None:
    with pytest.raises(ValueError, match="at least two rows"):
        leave_one_out_nearest(np.ones((count, 3), np.float32))


def test_ranks_of_the_first_relevant_neighbour_and_recall() -> None:
    ranks = first_relevant_rank(RELEVANT)
    assert ranks.tolist() == [1, 2, 0, 4]
    assert [recall_at(ranks, k) for k in (1, 2, 3, 4, 10)] == [0.25, 0.5, 0.5, 0.75, 0.75]


def test_no_neighbours_are_no_relevant_neighbours() -> None:
    assert first_relevant_rank(np.empty((3, 0), bool)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("relevant", "count", "expected"),
    [
        ([True, True, False, False], 2, 1.0),
        ([False, True, False, True], 2, 0.25),
        ([False, True, False, True], 4, (1 / 2 + 2 / 4) / 4),
        ([True, False, True, False], 3, (1 + 2 / 3) / 3),
        ([False, False, True, True], 2, 0.0),
        ([False, False, False, False], 3, 0.0),
        ([False, False, False, False], 0, 0.0),
    ],
)
def test_average_precision_at_r_by_hand(relevant: list[bool], count: int, expected: float) -> None:
    assert average_precision_at_r(np.array([relevant]), np.array([count])).tolist() == pytest.approx([expected])


def test_the_intervals_contain_the_mean_and_are_the_same_every_time() -> None:
    random = np.random.default_rng(5)
    correct, classes = random.random(300) < 0.7, random.integers(0, 20, 300)
    photos, by_class = bootstrap_over_photos(correct), bootstrap_over_classes(correct, classes)
    for interval in (photos, by_class):
        assert interval.low < correct.mean() < interval.high
    assert bootstrap_over_photos(correct) == photos
    assert bootstrap_over_classes(correct, classes) == by_class


def test_the_interval_over_photos_is_the_binomial_one() -> None:
    interval = bootstrap_over_photos(np.arange(1000) < 500)
    half_width = 1.96 * np.sqrt(0.5 * 0.5 / 1000)
    assert [interval.low, interval.high] == pytest.approx([0.5 - half_width, 0.5 + half_width], abs=0.003)


def test_the_interval_over_classes_is_wide_when_classes_disagree_and_nothing_when_they_agree() -> None:
    classes = np.repeat(np.arange(20), 10)
    all_or_nothing, halves = classes < 10, np.arange(200) % 2 == 0
    assert all_or_nothing.mean() == halves.mean() == 0.5
    disagreeing, agreeing = bootstrap_over_classes(all_or_nothing, classes), bootstrap_over_classes(halves, classes)
    photos = bootstrap_over_photos(all_or_nothing)
    assert disagreeing.high - disagreeing.low > 2 * (photos.high - photos.low)
    assert (agreeing.low, agreeing.high) == (0.5, 0.5)


@pytest.mark.parametrize("share", [0, 1])
def test_a_set_that_is_all_right_or_all_wrong_has_no_width(share: int) -> None:
    correct = np.full(30, bool(share))
    for interval in (bootstrap_over_photos(correct), bootstrap_over_classes(correct, np.arange(30) % 5)):
        assert (interval.low, interval.high) == (share, share)


def test_confusions_are_ordered_by_count_and_then_by_name() -> None:
    classes = ["b", "b", "a", "a", "c", "c", "a"]
    nearest = ["c", "c", "c", "b", "b", "c", "a"]
    assert most_confused(classes, nearest) == [("b", "c", 2), ("a", "b", 1), ("a", "c", 1), ("c", "b", 1)]
    assert most_confused(classes, nearest, most=1) == [("b", "c", 2)]


def test_the_examples_of_the_module_are_true() -> None:
    results = doctest.testmod(model.retrieval)
    assert results.attempted >= 3
    assert results.failed == 0
