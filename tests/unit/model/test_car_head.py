"""The head that tells cars from other pictures."""

from pathlib import Path

import numpy as np
import pytest

from model.car_head import CarHead
from model.errors import ModelInvalid
from model.types import Embeddings


def unit(rows: np.ndarray) -> Embeddings:
    found: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def around(direction: tuple[float, ...], count: int, seed: int) -> Embeddings:
    random = np.random.default_rng(seed)
    return unit(np.array(direction) + 0.2 * random.normal(size=(count, len(direction))))


def test_cars_and_other_pictures_that_were_not_fitted_on_are_told_apart() -> None:
    head = CarHead.fit(around((1, 0, 0, 0), 400, 0), around((0, 1, 0, 0), 60, 1))
    assert head.probabilities(around((1, 0, 0, 0), 50, 2)).min() > 0.5
    assert head.probabilities(around((0, 1, 0, 0), 50, 3)).max() < 0.5


def test_few_pictures_count_as_much_as_many_photos() -> None:
    """On the line between both a picture may be either, however many of each there are."""
    head = CarHead.fit(around((1, 0), 5000, 0), around((0, 1), 50, 1))
    assert head.probabilities(unit(np.array([[1.0, 1.0]])))[0] == pytest.approx(0.5, abs=0.1)


def test_a_head_that_is_read_says_what_the_written_one_says(tmp_path: Path) -> None:
    head = CarHead.fit(around((1, 0, 0), 60, 0), around((0, 1, 0), 60, 1))
    head.write(tmp_path / "car_head.f32")
    rows = around((1, 1, 0), 20, 2)
    read = CarHead.read(tmp_path / "car_head.f32", 3)
    assert read.probabilities(rows) == pytest.approx(head.probabilities(rows), abs=1e-5)


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, float("nan"), 0.0, 0.0], []])
def test_a_file_that_is_no_head_of_this_model_is_refused(values: list[float], tmp_path: Path) -> None:
    (tmp_path / "car_head.f32").write_bytes(np.array(values, "<f4").tobytes())
    with pytest.raises(ModelInvalid, match="does not have 4 numbers"):
        CarHead.read(tmp_path / "car_head.f32", 3)
    (tmp_path / "car_head.f32").write_bytes(b"odd")
    with pytest.raises(ModelInvalid, match="cannot be read"):
        CarHead.read(tmp_path / "car_head.f32", 3)
