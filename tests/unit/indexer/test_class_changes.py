"""Classes take in photos that come and go, without a new fit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.class_changes import ChangedWeights, ClassStatistics
from indexer.class_weights import ClassFit
from tests.unit.indexer.test_class_weights import gallery, unit


def changing(fit: ClassFit) -> ChangedWeights:
    return ChangedWeights(fit.weights().rows, ClassStatistics.of(fit))


def test_the_class_statistics_gives_the_weights_of_the_fit() -> None:
    rows, codes, _ = gallery([4, 7, 9], 8, 0.5, seed=0)
    fit = ClassFit(rows.__getitem__, codes)
    class_statistics = ClassStatistics.of(fit)
    for code in range(3):
        total, count = rows[codes == code].astype(np.float64).sum(axis=0), int((codes == code).sum())
        assert class_statistics.weights_of(code, total, count) == pytest.approx(fit.weights().rows[code], abs=1e-4)


def test_a_class_that_is_put_is_scored_as_in_a_new_fit() -> None:
    rows, codes, middles = gallery([20] * 12, 32, 0.7, seed=1)
    known = codes < 11
    later = changing(ClassFit(rows[known].__getitem__, codes[known])).followed_by(codes[~known], rows[~known], [1] * 20)
    anew = ClassFit(rows.__getitem__, codes).weights()
    asked = np.repeat(np.arange(12), 40)
    queries = unit(middles[asked] + 0.7 * np.random.default_rng(2).normal(size=(len(asked), 32)))
    every = np.tile(np.arange(12), (len(asked), 1))
    found, wanted = later.scores(queries, every), anew.scores(queries, every)
    assert found[:, 11] == pytest.approx(wanted[:, 11], abs=0.05)
    told = found.argmax(axis=1)
    assert (told == asked)[asked == 11].mean() > 0.9
    assert (told == wanted.argmax(axis=1)).mean() > 0.98


def test_classes_that_did_not_change_keep_their_scores_to_the_bit() -> None:
    rows, codes, _ = gallery([5, 5, 5], 8, 0.5, seed=3)
    before = changing(ClassFit(rows.__getitem__, codes))
    later = before.followed_by(np.array([1]), rows[:1], [1])
    every = np.tile(np.arange(3), (len(rows), 1))
    kept = [0, 2]
    assert (later.scores(rows, every)[:, kept] == before.scores(rows, every)[:, kept]).all()
    assert (later.scores(rows, every)[:, 1] != before.scores(rows, every)[:, 1]).all()


def test_photos_without_a_class_change_nothing_and_a_class_without_photos_says_nothing() -> None:
    rows, codes, _ = gallery([2, 3], 6, 0.5, seed=4)
    before = changing(ClassFit(rows.__getitem__, codes))
    every = np.tile(np.arange(2), (5, 1))
    unlabelled = before.followed_by(np.array([-1]), rows[:1], [1])
    assert (unlabelled.scores(rows, every) == before.scores(rows, every)).all()
    emptied = before.followed_by(codes[:2], rows[:2], [-1, -1])
    assert (emptied.scores(rows, every)[:, 0] == 0).all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), pieces=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_what_comes_and_goes_again_leaves_the_scores_as_they_were_in_any_number_of_steps(
    seed: int, pieces: list[int]
) -> None:
    rows, codes, _ = gallery([3, 4, 5], 6, 0.7, seed)
    random = np.random.default_rng(seed)
    before = changing(ClassFit(rows.__getitem__, codes))
    new, of = unit(random.normal(size=(sum(pieces), 6))), random.integers(-1, 5, sum(pieces))
    once = before.followed_by(of, new, [1] * len(of))
    later = before
    for part in np.split(np.arange(len(of)), np.cumsum(pieces)[:-1]):
        later = later.followed_by(of[part], new[part], [1] * len(part))
    every = np.tile(np.arange(5), (len(rows), 1))
    there = np.isin(np.arange(5), [*range(3), *of])
    assert later.scores(rows, every)[:, there] == pytest.approx(once.scores(rows, every)[:, there], abs=1e-5)
    back = later.followed_by(of, new, [-1] * len(of))
    assert back.scores(rows, every[:, :3]) == pytest.approx(before.scores(rows, every[:, :3]), abs=1e-3)


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    rows, codes, _ = gallery([3, 4], 6, 0.7, seed=5)
    class_statistics, path = ClassStatistics.of(ClassFit(rows.__getitem__, codes)), tmp_path / "class_statistics.f32"
    class_statistics.write(path)
    again = ClassStatistics.read(path, 6, np.array([3, 4]))
    assert (again.sums == class_statistics.sums).all()
    assert (again.inverse == class_statistics.inverse).all()
    with pytest.raises(ValueError, match="class_statistics"):
        ClassStatistics.read(path, 6, np.array([3, 4, 5]))
