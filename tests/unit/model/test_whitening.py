"""Whitening: directions in which photos of one class differ count less."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import DataInvalid
from model.retrieval import leave_one_out_nearest
from model.whitening import fit_whitening


def pairs(deviation: tuple[float, float], classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Two photos a class, `deviation` and its opposite away from the class's place on a line."""
    middle = np.stack([np.zeros(classes), np.arange(classes)], axis=1)
    features = np.stack([middle + deviation, middle - deviation], axis=1).reshape(-1, 2)
    return features.astype(np.float32), np.repeat(np.arange(classes), 2)


def test_a_direction_in_which_classes_vary_more_is_made_shorter() -> None:
    features, classes = pairs((3.0, 0.0))
    upright, _ = pairs((0.0, 1.0))
    both, codes = np.concatenate([features, upright]), np.concatenate([classes, classes])
    # Variances 9 : 1 around a mean of 5; C^-1/2 is then 1 / sqrt(1.8) and 1 / sqrt(0.2).
    matrix = fit_whitening(both, codes, shrink=0.0, exponent=1.0)
    assert matrix == pytest.approx(np.diag([1.8**-0.5, 0.2**-0.5]), abs=1e-6)
    half = fit_whitening(both, codes, shrink=0.5, exponent=1.0)
    assert half == pytest.approx(np.diag([1.4**-0.5, 0.6**-0.5]), abs=1e-6)
    weak = fit_whitening(both, codes, shrink=0.0, exponent=0.5)
    assert weak == pytest.approx(np.diag([1.8**-0.25, 0.2**-0.25]), abs=1e-6)


def test_neighbours_that_shared_what_classes_vary_in_become_those_of_the_class() -> None:
    random = np.random.default_rng(0)
    car, colour = random.normal(size=(20, 8)), random.normal(size=(2, 8))
    coloured = np.concatenate([car, car]) + 3 * np.repeat(colour, 20, axis=0)
    features = np.concatenate([coloured, random.normal(size=(40, 8)) * 0.1], axis=1).astype(np.float32)
    classes = np.tile(np.arange(20), 2)

    def top1(rows: np.ndarray) -> float:
        unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return float((classes[leave_one_out_nearest(unit)] == classes).mean())

    assert top1(features) < 0.5
    assert top1(features @ fit_whitening(features, classes, shrink=0.01, exponent=1.0)) > 0.9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), photos=st.integers(2, 5), dim=st.integers(2, 8))
def test_fully_whitened_the_covariance_within_classes_is_the_same_in_every_direction(
    seed: int, photos: int, dim: int
) -> None:
    random = np.random.default_rng(seed)
    classes = np.repeat(np.arange(12), photos)
    mixing = random.normal(size=(dim, dim)) + 2 * np.eye(dim)
    features = (random.normal(size=(12, dim))[classes] * 9 + random.normal(size=(len(classes), dim)) @ mixing).astype(
        np.float32
    )
    rows = features @ fit_whitening(features, classes, shrink=0.0, exponent=1.0)
    means = np.stack([rows[classes == code].mean(axis=0) for code in range(12)])
    deviations = rows - means[classes]
    covariance = deviations.T @ deviations / (len(rows) - 12)
    assert covariance / covariance[0, 0] == pytest.approx(np.eye(dim), abs=1e-2)


@pytest.mark.parametrize("deviation", [0.0, float("nan")])
def test_photos_that_do_not_differ_and_features_that_are_no_numbers_are_refused(deviation: float) -> None:
    with pytest.raises(DataInvalid, match="all the same, or not finite"):
        fit_whitening(*pairs((deviation, 0.0)))


def test_classes_with_one_photo_are_left_out_and_too_few_others_are_refused() -> None:
    features, classes = pairs((3.0, 1.0))
    lone = np.array([[1e6, -1e6]], np.float32)
    more, codes = np.concatenate([features, lone]), np.append(classes, 10)
    assert np.array_equal(fit_whitening(more, codes), fit_whitening(features, classes))
    with pytest.raises(DataInvalid, match="at least 10 classes with two photos"):
        fit_whitening(features[:-1], classes[:-1])
