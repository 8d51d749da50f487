"""The cars of the rendered benchmark: their counts, what a name fixes, and likeness."""

import unicodedata
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from bench.rendered_cars.archetypes import SPREAD, options
from bench.rendered_cars.catalogue import FIXED_BY_NAME, Car, cars, mean_car
from bench.rendered_cars.design import distance
from bench.rendered_cars.materials import COLOURS

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
def test_a_split_has_the_original_counts(split: str) -> None:
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
