"""The interval of a paired difference of two precisions."""

import numpy as np
import pytest

from bench.precision import paired_over_photos
from model.retrieval import bootstrap_over_classes, bootstrap_over_photos


def test_a_paired_difference_is_known_more_closely_than_the_means_it_is_of() -> None:
    random = np.random.default_rng(7)
    before, classes = random.random(2000) < 0.6, random.integers(0, 25, 2000)
    after = before ^ (random.random(2000) < 0.02)
    difference = after.mean() - before.mean()
    alone = bootstrap_over_photos(after)
    for paired in (paired_over_photos(before, after), bootstrap_over_classes(after.astype(float) - before, classes)):
        assert paired.low < difference < paired.high
        assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    assert paired_over_photos(before, after) == paired_over_photos(before, after)


def test_the_paired_interval_over_photos_is_that_of_independent_signs() -> None:
    """40 of 1000 photos gained and 10 lost: the mean of 1000 draws of +1, -1 and 0 (McNemar's pairs)."""
    before = np.arange(1000) < 10
    after = np.arange(1000) >= 960
    interval = paired_over_photos(before, after)
    half_width = 1.96 * np.sqrt((0.04 + 0.01 - 0.03**2) / 1000)
    assert [interval.low, interval.high] == pytest.approx([0.03 - half_width, 0.03 + half_width], abs=0.002)


def test_a_difference_that_lies_in_one_class_is_uncertain_over_classes() -> None:
    classes = np.repeat(np.arange(20), 10)
    before = np.ones(200, bool)
    after = classes != 3
    over_classes, over_photos = (
        bootstrap_over_classes(after.astype(float) - before, classes),
        paired_over_photos(before, after),
    )
    assert (over_classes.low, over_classes.high) == pytest.approx((-0.15, 0.0))
    assert over_photos.high < 0


def test_the_same_answers_have_no_difference_and_no_width() -> None:
    same = np.arange(60) % 3 == 0
    for interval in (paired_over_photos(same, same), bootstrap_over_classes(np.zeros(60), np.arange(60) % 5)):
        assert (interval.low, interval.high) == (0, 0)
