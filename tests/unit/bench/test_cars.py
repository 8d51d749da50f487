"""The rendered benchmark's cars: how many there are, what a name fixes, the dial, and that each can be built."""

import unicodedata
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from bench.rendered_cars.archetypes import SPREAD, options
from bench.rendered_cars.body import build
from bench.rendered_cars.catalogue import FIXED_BY_NAME, Car, cars, mean_car
from bench.rendered_cars.design import distance
from bench.rendered_cars.paint import COLOURS
from bench.rendered_cars.parts import Part

COUNTS = {"train": (84, 561), "test": (78, 116)}
EVERY = cars("test", likeness=0.0)


def one_a_name(found: list[Car]) -> list[Car]:
    """The first car of each name."""
    return list({car.name: car for car in reversed(found)}.values())


def between_names(likeness: float) -> float:
    """Mean distance of two names' designs."""
    designs = [car.design for car in one_a_name(cars("test", likeness=likeness))[:40]]
    return float(np.mean([distance(a, b, SPREAD) for a, b in combinations(designs, 2)]))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_has_the_counts_of_the_seed(split: str) -> None:
    found = cars("train") if split == "train" else cars("test")
    counts = Counter(car.name for car in found)
    assert (len(counts), len(found)) == COUNTS[split]
    assert len(set(counts.values())) > 2


def test_no_name_is_in_both_splits() -> None:
    assert not {car.name for car in cars("train")} & {car.name for car in cars("test")}


def test_names_are_normalised_and_in_two_scripts() -> None:
    names = {car.name for car in cars("train") + cars("test")}
    assert all(unicodedata.normalize("NFC", name) == name for name in names)
    assert len(names) == 162
    assert 0.4 < sum(name.isascii() for name in names) / len(names) < 0.6


def test_the_same_seed_gives_the_same_cars() -> None:
    assert cars("test", seed=3) == cars("test", seed=3)
    assert cars("test", seed=3) != cars("test", seed=4)


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_two_cars_are_the_same(split: str) -> None:
    found = cars("train") if split == "train" else cars("test")
    assert len({(car.name, car.generation, car.colour) for car in found}) == len(found)
    assert {car.colour for car in found} <= COLOURS.keys()


def test_a_generation_has_one_design_and_stays_near_its_name() -> None:
    found = cars("train")
    designs = {(car.name, car.generation): car.design for car in found}
    assert all(designs[car.name, car.generation] == car.design for car in found)
    for a, b in combinations([car for car in found if car.name == found[0].name], 2):
        for name in FIXED_BY_NAME:
            assert abs(getattr(a.design, name) - getattr(b.design, name)) < SPREAD[name]
        assert (a.design.side_windows, a.design.head_kind, a.design.tail_kind) == (
            b.design.side_windows,
            b.design.head_kind,
            b.design.tail_kind,
        )


def test_cars_of_a_name_are_nearer_than_cars_of_two_names() -> None:
    found = cars("train")
    within = [distance(a.design, b.design, SPREAD) for a, b in combinations(found, 2) if a.name == b.name]
    names = one_a_name(found)
    across = [distance(a.design, b.design, SPREAD) for a, b in combinations(names[:40], 2)]
    assert np.mean(within) < 0.5 * np.mean(across)


def test_names_grow_alike_as_the_dial_turns() -> None:
    distances = [between_names(likeness) for likeness in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert all(later < 0.97 * earlier for earlier, later in pairwise(distances))


def test_at_full_likeness_only_generations_differ() -> None:
    firsts = [car.design for car in cars("test", likeness=1.0) if car.generation in ("I", "HD", "NF", "A", "QL", "Mk1")]
    assert len(set(firsts)) == 1
    assert firsts[0].measures() == pytest.approx(mean_car())


@pytest.mark.parametrize("likeness", [-0.1, 1.1])
def test_a_dial_beyond_its_ends_is_refused(likeness: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        cars("test", likeness=likeness)


def test_every_layout_is_one_that_some_kind_of_car_draws() -> None:
    known = {name: {word for kind in ("sedan", "coupe", "pickup", "city") for word in options(kind)[name]}
             for name in options("sedan")}  # fmt: skip
    for car in EVERY:
        for name, word in car.design.choices().items():
            assert word in known[name] | set(options("boxvan")[name]) | set(options("offroad")[name])


def extent(
    parts: list[Part], *, skip: tuple[str, ...] = ()
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    """Lowest and highest corner of all parts but some."""
    points = np.concatenate([np.asarray(part.mesh.points, dtype=np.float64) for part in parts if part.role not in skip])
    return points.min(axis=0), points.max(axis=0)


@pytest.mark.parametrize("start", range(4))
def test_every_name_of_the_test_split_builds(start: int) -> None:
    for number, car in enumerate(one_a_name(EVERY)[start::4]):
        parts = build(car, lamps_lit=number % 2 == 0)
        for part in parts:
            assert np.isfinite(part.mesh.points).all(), (car.name, part.role)
            normals = np.asarray(part.mesh.point_data["Normals"])
            assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-3), (car.name, part.role)
            assert part.mesh.n_cells * 4 == len(part.mesh.faces), part.role
        low, high = extent(parts)
        assert abs(low[2]) < 0.002, car.name
        assert low[1] == pytest.approx(-high[1], abs=0.02)
        low, high = extent(parts, skip=("mirror", "glass", "trim", "aerial", "rails", "plate"))
        size = high - low
        assert abs(high[0] + low[0]) < 0.25, car.name
        assert size == pytest.approx([car.design.length, car.design.width, car.design.height], abs=0.16), car.name
        assert 3.2 < size[0] < 5.6
        assert sum(part.mesh.n_cells for part in parts) < 80_000, car.name
        assert {"paint", "glass", "tyre", "rim", "head_lamp", "tail_lamp", "plate", "seam"} <= {
            part.role for part in parts
        }


def test_lamps_shine_only_when_lit() -> None:
    car = EVERY[0]
    for lit in (False, True):
        shining = {part.role for part in build(car, lit) if max(part.material.emissive) > 0}
        assert ({"head_lamp", "tail_lamp"} <= shining) is lit
        assert lit or not shining


def test_the_same_car_builds_the_same_meshes() -> None:
    first, again = build(EVERY[1], lamps_lit=False), build(EVERY[1], lamps_lit=False)
    for a, b in zip(first, again, strict=True):
        assert a.role == b.role
        assert np.array_equal(np.asarray(a.mesh.points), np.asarray(b.mesh.points))
