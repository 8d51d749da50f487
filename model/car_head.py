"""The probability that a photo shows a car at all: a logistic regression on its embedding.

The embedding serves because whitening and the L2 norm keep what tells cars from other things; a second output of the
graph would take longer and say the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from model.errors import ModelInvalid
from model.logistic import Values, fit_logistic, sigmoid
from model.storage import write_durably
from model.types import Embeddings

RIDGE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class CarHead:
    """Weights float64 (D,) of an embedding, and a bias."""

    weights: Values
    bias: float

    def probabilities(self, embeddings: Embeddings) -> Values:
        """float32 (n, D), unit rows -> float64 (n,)."""
        return sigmoid(embeddings @ self.weights + self.bias)

    @classmethod
    def fit(cls, cars: Embeddings, others: Embeddings) -> Self:
        """Fits the head to photos of cars and to other pictures, float32 (n, D) each; both sides have the same weight.

        There may be fewer pictures than weights, hence the ridge.
        """
        rows = np.concatenate([cars, others]).astype(np.float64)
        design = np.column_stack([rows, np.ones(len(rows))])
        is_car = np.arange(len(rows)) < len(cars)
        fewer = min(len(cars), len(others))
        counts = np.where(is_car, fewer / len(cars), fewer / len(others))
        ridge = np.append(np.full(rows.shape[1], RIDGE), 1e-6)  # the bias is free
        weights = fit_logistic(design, is_car, ridge, counts)
        return cls(weights[:-1], float(weights[-1]))

    def write(self, path: Path) -> None:
        """Writes D weights and the bias as float32, durably."""
        write_durably(path, np.append(self.weights, self.bias).astype("<f4").tobytes())

    @classmethod
    def read(cls, path: Path, dim: int) -> Self:
        """Reads what `write` wrote for embeddings of `dim` values; raises ModelInvalid for anything else."""
        try:
            values = np.frombuffer(path.read_bytes(), "<f4").astype(np.float64)
        except (OSError, ValueError) as problem:
            raise ModelInvalid(f"{path} cannot be read as the weights of a car head.") from problem
        if len(values) != dim + 1 or not np.isfinite(values).all():
            raise ModelInvalid(f"{path} does not have {dim + 1} numbers.")
        return cls(values[:-1], float(values[-1]))
