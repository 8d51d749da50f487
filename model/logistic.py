"""Logistic regression with a ridge, for probabilities that are fitted where the server has no library for it."""

import numpy as np
import numpy.typing as npt

STEPS = 50
SMALL_STEP = 1e-9
Values = npt.NDArray[np.float64]


def sigmoid(values: Values) -> Values:
    """1 / (1 + exp(-x)), without overflow."""
    result: Values = np.exp(-np.logaddexp(0, -values))
    return result


def fit_logistic(
    design: Values, positive: npt.NDArray[np.bool_], ridge: Values, counts: Values | None = None
) -> Values:
    """Fits weights (D,) to rows float64 (n, D) by Newton's method.

    Stops after 50 steps, converged or not. `ridge` (D,) is the penalty of each weight's square, so that separable sets
    stay finite; `counts` (n,) is how often each row counts, by default once.
    """
    counts = np.ones(len(design)) if counts is None else counts
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        expected = sigmoid(design @ weights)
        slope = design.T @ (counts * (positive - expected)) - ridge * weights
        curvature = (design * (counts * expected * (1 - expected))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        weights += step
        if abs(step).max() < SMALL_STEP:
            break
    return weights
