"""The probability of a decision: it is kept on other photos, and follows the gallery that it was fitted to."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.calibration import (
    PRECISIONS,
    SHIPPED,
    Calibration,
    auroc,
    calibration_error,
    fit,
    leave_one_out,
    lowest_threshold,
    reliability,
    sampled_rows,
)
from indexer.class_weights import ClassFit
from indexer.decision import Decisions
from indexer.stores.faiss import FaissStore


def drawn(count: int, seed: int) -> tuple[Decisions, np.ndarray]:
    """Decisions that are right with 1 / (1 + exp(4 - 8 agreement)); the other signals are noise."""
    random = np.random.default_rng(seed)
    agreement = random.uniform(0, 1, count)
    right = random.uniform(0, 1, count) < 1 / (1 + np.exp(4 - 8 * agreement))
    noise = random.normal(size=(2, count))
    return Decisions(np.zeros(count, np.int64), agreement, noise[0], noise[1]), right


def test_a_fit_finds_what_the_decisions_were_drawn_with_and_holds_on_others() -> None:
    fitted = fit(*drawn(4000, 0))
    assert fitted.weights == pytest.approx((8, 0, 0), abs=0.6)
    assert fitted.bias == pytest.approx(-4, abs=0.4)
    assert fitted.photos == 4000
    others, right = drawn(4000, 1)
    probabilities = fitted.probabilities(others)
    assert calibration_error(probabilities, right) < 0.03
    assert auroc(probabilities, right) == pytest.approx(fitted.auroc, abs=0.03)
    chosen = probabilities >= fitted.threshold(0.9)
    assert right[chosen].mean() == pytest.approx(0.9, abs=0.03)
    assert 0.1 < chosen.mean() < 0.6


def test_where_everything_is_right_the_fit_stays_finite_and_every_precision_is_kept() -> None:
    decisions, _ = drawn(500, 0)
    fitted = fit(decisions, np.ones(500, np.bool_))
    probabilities = fitted.probabilities(decisions)
    assert np.isfinite(probabilities).all()
    assert probabilities.min() > 0.9
    assert (probabilities >= fitted.threshold(0.99)).all()
    assert (fitted.auroc, fitted.top1) == (None, 1.0)


def test_few_photos_get_the_fit_that_ships_whose_threshold_is_the_precision_itself() -> None:
    assert fit(*drawn(199, 0)) is SHIPPED
    assert (SHIPPED.photos, SHIPPED.threshold(0.95)) == (0, 0.95)
    sure = Decisions(np.array([0, 0]), np.array([1.0, 0.2]), np.array([1.0, 0.3]), np.array([1.0, 0.0]))
    assert SHIPPED.probabilities(sure) == pytest.approx([1 / (1 + np.exp(-5.75)), 1 / (1 + np.exp(2.12))])


def test_where_the_signals_say_nothing_hardly_any_decision_keeps_a_high_precision() -> None:
    decisions, _ = drawn(1000, 0)
    fitted = fit(decisions, np.random.default_rng(1).uniform(size=1000) < 0.6)
    probabilities = fitted.probabilities(decisions)
    assert (probabilities >= fitted.threshold(0.99)).mean() < 0.01
    assert (probabilities >= fitted.threshold(0.55)).all()
    assert fit(decisions, np.zeros(1000, np.bool_)).threshold(0.5) == 1  # never kept, and never reached


def test_a_calibration_survives_being_written_and_read() -> None:
    fitted = fit(*drawn(400, 0))
    assert Calibration.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted
    assert len(fitted.thresholds) == len(PRECISIONS)
    with pytest.raises(ValueError, match="error is missing"):
        Calibration.from_json({**fitted.to_json(), "error": None})


def test_leave_one_out_is_the_decision_of_a_gallery_without_the_photo() -> None:
    random = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 5)
    rows = random.normal(size=(6, 8))[codes] + 0.6 * random.normal(size=(30, 8))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    asked = sampled_rows(codes, photos=5)
    assert asked.tolist() == list(range(30))
    shares = np.ones(6)
    classes = ClassFit(unit.__getitem__, codes, shares)
    decisions, right = leave_one_out(FaissStore.create(unit), unit[asked], asked, codes, classes)
    assert right.tolist() == (decisions.classes == codes).tolist()
    for row in (0, 17, 29):
        kept = np.delete(np.arange(30), row)
        fewer = ClassFit(unit[kept].__getitem__, codes[kept], shares, classes.likeness).weights()
        near = FaissStore.create(unit[kept]).search(unit[row : row + 1], 10)
        found = codes[kept][near.rows]
        from_others = fewer.scores(unit[row : row + 1], found)
        best = np.argmax(
            [(near.scores[0][found[0] == code].max() + 2 * from_others[0][found[0] == code][0]) for code in found[0]]
        )
        assert decisions.classes[row] == found[0][best]


def test_a_reliability_diagram_has_the_share_that_is_right_in_each_bin() -> None:
    found = reliability(np.array([0.05, 0.72, 0.78, 0.95, 1.0]), np.array([False, True, False, True, True]))
    told = {(one.low, one.photos, one.right) for one in found.bins if one.photos}
    assert told == {(0.0, 1, 0.0), (0.7, 2, 0.5), (0.9, 2, 1.0)}
    assert [one.right for one in found.bins[1:7]] == [None] * 6
    by_precision = {point.precision: (point.threshold, point.coverage) for point in found.curve}
    assert by_precision[0.6] == (0.05, 1.0)
    assert by_precision[0.7] == (0.72, 0.8)
    assert by_precision[0.99] == (0.95, 0.4)
    assert json.loads(json.dumps(found.to_json()))["bins"][9] == {"low": 0.9, "high": 1.0, "photos": 2, "right": 1.0}


def test_a_sample_takes_rows_at_even_steps_of_classes_with_enough_photos() -> None:
    codes = np.array([0, 1, 1, 2, 3, 3, 3])
    assert sampled_rows(codes, photos=2).tolist() == [1, 2, 4, 5, 6]
    assert sampled_rows(codes, 2, photos=2).tolist() == [1, 4]
    assert sampled_rows(codes).tolist() == []
    assert sampled_rows(np.repeat([0, 1, 2], [9, 10, 11])).tolist() == list(range(9, 30))


@settings(max_examples=50, deadline=None)
@given(
    told=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=30), precision=st.floats(0.1, 1.0)
)
def test_the_threshold_is_the_lowest_that_keeps_the_precision(told: list[tuple[int, bool]], precision: float) -> None:
    probabilities = np.array([tenths / 10 for tenths, _ in told])
    right = np.array([fine for _, fine in told])
    kept = [value for value in probabilities if right[probabilities >= value].mean() >= precision]
    assert lowest_threshold(probabilities, right, precision) == pytest.approx(min(kept, default=1.0))
