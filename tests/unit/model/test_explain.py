"""Why two photos match: maps that add up to the cosine, by hand and for random features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.explain import Maps, explain, shares_of


def test_average_pooling_by_hand() -> None:
    """Two features on 2 x 2 places: the first photo has one place in common with the second."""
    query: Maps = np.array([[[4, 0], [0, 0]], [[0, 0], [0, 4]]], np.float32)  # pooled (1, 1), length sqrt(2)
    hit: Maps = np.array([[[0, 4], [4, 0]], [[0, 0], [0, 0]]], np.float32)  # pooled (2, 0), length 2
    found = explain(shares_of(query), shares_of(hit))
    half = 1 / np.sqrt(2)  # the cosine of (1, 1) and (2, 0)
    assert found.query == pytest.approx(np.array([[half, 0], [0, 0]]))
    assert found.hit == pytest.approx(np.array([[0, half / 2], [half / 2, 0]]))
    assert found.constant == 0
    assert found.cosine == pytest.approx(half)


def test_a_generalised_mean_is_shared_out_by_the_powers_of_the_values() -> None:
    """(2, 0, 0, 2) has the mean of cubes 4; its root v is 1.5874, and each 2 adds 8 / (4 v^2) = v / 2."""
    maps: Maps = np.array([[[2, 0], [0, 2]]], np.float32)
    v = 4 ** (1 / 3)
    assert shares_of(maps, 3)[0] == pytest.approx(np.array([[v / 2, 0], [0, v / 2]]))
    uneven: Maps = np.array([[[2, 1], [0, 0]]], np.float32)
    assert shares_of(uneven, 3)[0, 0] == pytest.approx([8 / 9 * (9 / 4) ** (1 / 3), 1 / 9 * (9 / 4) ** (1 / 3)])


def test_a_whitening_may_make_a_place_count_against_the_match() -> None:
    """The place of the second feature lowers the cosine: (1, 1) becomes (1, -1), and (1, 0) stays."""
    query: Maps = np.array([[[1, 0]], [[0, 1]]], np.float32) * 2
    hit: Maps = np.array([[[1]], [[0]]], np.float32)
    mixing = np.array([[1, -0.5], [0, 1]], np.float32)  # (1, 1) -> (0.5, 1)
    found = explain(shares_of(query), shares_of(hit), mixing)
    length = np.hypot(0.5, 1)
    assert found.query == pytest.approx(np.array([[1, -0.5]]) / length)
    assert found.hit == pytest.approx(np.array([[0.5 / length]]))


def test_an_offset_is_of_no_place() -> None:
    """(1, 0) and (0, 1) have nothing in common; with (1, 1) added they are (2, 1) and (1, 2), of the cosine 4 / 5."""
    query: Maps = np.array([[[1]], [[0]]], np.float32)
    hit: Maps = np.array([[[0]], [[1]]], np.float32)
    found = explain(shares_of(query), shares_of(hit), None, np.ones(2, np.float32))
    assert (found.query.tolist(), found.hit.tolist()) == ([[0]], [[0]])
    assert found.constant == pytest.approx(4 / 5)


def test_photos_without_any_feature_have_nothing_in_common() -> None:
    nothing: Maps = np.zeros((3, 2, 2), np.float32)
    for power in (1, 3):
        found = explain(shares_of(nothing, power), shares_of(nothing, power))
        assert (found.query.sum(), found.hit.sum(), found.cosine) == (0, 0, 0)


@given(
    seed=st.integers(0, 2**32 - 1),
    power=st.sampled_from([1.0, 2.0, 3.0, 4.5]),
    whitened=st.booleans(),
    moved=st.booleans(),
    sides=st.tuples(*[st.integers(1, 6)] * 4),
)
def test_each_map_and_the_constant_add_up_to_the_cosine(
    seed: int, power: float, whitened: bool, moved: bool, sides: tuple[int, int, int, int]
) -> None:
    random = np.random.default_rng(seed)
    query = random.exponential(size=(8, *sides[:2])).astype(np.float32)
    hit = random.exponential(size=(8, *sides[2:])).astype(np.float32)
    whitening = random.standard_normal((5, 8)).astype(np.float32) if whitened else None
    offset = random.standard_normal(5 if whitened else 8).astype(np.float32) if moved else None

    def embedded(maps: Maps) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        pooled = (maps.astype(np.float64) ** power).mean(axis=(1, 2)) ** (1 / power)
        vector = pooled if whitening is None else whitening @ pooled
        vector = vector if offset is None else vector + offset
        return vector / np.linalg.norm(vector)  # type: ignore[no-any-return]

    cosine = embedded(query) @ embedded(hit)
    found = explain(shares_of(query, power), shares_of(hit, power), whitening, offset)
    assert (found.query.shape, found.hit.shape) == (sides[:2], sides[2:])
    assert found.query.sum() + found.constant == pytest.approx(cosine, abs=1e-5)
    assert found.hit.sum() + found.constant == pytest.approx(cosine, abs=1e-5)
    assert found.cosine == pytest.approx(cosine, abs=1e-5)
