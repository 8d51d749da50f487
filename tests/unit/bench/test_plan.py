"""The plan of the rendered benchmark: the original project's counts, and fractions that grow without changing."""

from collections import Counter, defaultdict
from functools import cache

import pytest

from bench.rendered_cars.catalogue import Car, cars
from bench.rendered_cars.plan import HEADINGS, TIMES, PlanInvalid, Shot, Split, shots

SPLITS: tuple[Split, ...] = ("train", "test")
ORIGINAL_COUNTS = {"train": (84, 53_813), "test": (78, 11_046)}


@cache
def catalogue(split: Split) -> list[Car]:
    return cars(split)


def plan(split: Split, scale: float = 1.0) -> list[Shot]:
    return shots(catalogue(split), split, 0, scale)


def photos_by_class(planned: list[Shot], split: Split) -> Counter[str]:
    return Counter(catalogue(split)[shot.car].name for shot in planned)


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_has_the_original_numbers_of_classes_and_photos(split: Split) -> None:
    planned = plan(split)
    classes, photos = ORIGINAL_COUNTS[split]
    assert (len(photos_by_class(planned, split)), len(planned)) == (classes, photos)
    assert len({shot.path for shot in planned}) == photos
    assert {shot.path.partition("/")[0] for shot in planned} == {car.name for car in catalogue(split)}


@pytest.mark.parametrize("split", SPLITS)
def test_each_car_is_seen_from_all_sides_at_all_times(split: Split) -> None:
    seen = defaultdict(set)
    for shot in plan(split):
        seen[shot.car].add((shot.heading, shot.time))
    assert len(seen) == len(catalogue(split))
    assert min(len(views) for views in seen.values()) == 95  # of 96: no car gives up more than one
    assert all(view[0] in HEADINGS and view[1] in TIMES for views in seen.values() for view in views)


def test_no_class_is_in_both_splits() -> None:
    assert {car.name for car in catalogue("train")}.isdisjoint(car.name for car in catalogue("test"))


@pytest.mark.parametrize("split", SPLITS)
def test_a_smaller_scale_is_part_of_a_larger_one(split: Split) -> None:
    larger = set(plan(split))
    for scale in (0.5, 0.1, 0.03, 0.001):
        smaller = set(plan(split, scale))
        assert smaller < larger
        larger = smaller


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("scale", [0.05, 0.25, 0.7])
def test_a_fraction_has_the_structure_of_the_whole(split: Split, scale: float) -> None:
    planned = plan(split, scale)
    assert len(planned) == round(scale * ORIGINAL_COUNTS[split][1])
    cars_seen = Counter(shot.car for shot in planned)
    assert len(cars_seen) == len(catalogue(split))
    assert max(cars_seen.values()) - min(cars_seen.values()) <= 2
    for counts in (Counter(shot.heading for shot in planned), Counter(shot.time for shot in planned)):
        assert max(counts.values()) < 1.3 * min(counts.values())


@pytest.mark.parametrize("split", SPLITS)
def test_the_smallest_benchmark_has_two_photos_a_class(split: Split) -> None:
    counts = photos_by_class(plan(split, 1e-6), split)
    assert len(counts) == ORIGINAL_COUNTS[split][0]
    assert set(counts.values()) == {2}


def test_another_seed_drops_and_ranks_other_photos() -> None:
    assert set(shots(catalogue("test"), "test", 1)) != set(plan("test"))


@pytest.mark.parametrize("scale", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_an_impossible_scale_is_refused_in_one_sentence(scale: float) -> None:
    with pytest.raises(PlanInvalid, match="greater than 0 and at most 1"):
        plan("test", scale)


def test_a_photos_chance_is_its_own() -> None:
    everything = {shot.entropy(0) for split in SPLITS for shot in plan(split)}
    assert len(everything) == sum(count for _, count in ORIGINAL_COUNTS.values())


def test_a_catalogue_that_is_too_small_is_refused() -> None:
    with pytest.raises(PlanInvalid, match="too few"):
        shots(catalogue("test")[:50], "test")
