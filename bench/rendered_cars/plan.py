"""The photos of a split: every car at 24 headings and four times of day, less a few, and fractions of that."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from model.errors import CarsearchError

if TYPE_CHECKING:
    from bench.rendered_cars.catalogue import Car

Split = Literal["train", "test"]

PHOTOS: dict[Split, int] = {"train": 53_813, "test": 11_046}
"""The counts of the original project's private data."""
HEADINGS = tuple(range(0, 360, 15))
LEAST_A_CLASS = 2
"""The query of a class with one photo has no neighbour of its class."""


class Time(StrEnum):
    MORNING = "morning"
    NOON = "noon"
    AFTERNOON = "afternoon"
    NIGHT = "night"


TIMES = tuple(Time)
PHOTOS_A_CAR = len(HEADINGS) * len(TIMES)


class PlanInvalid(CarsearchError, code="plan_invalid"):
    """A benchmark that cannot be planned; the message names value and rule."""


@dataclass(frozen=True)
class Shot:
    """One photo to render: the car, its heading and the time of day."""

    split: Split
    car: int  # its place in the split's catalogue
    heading: int  # degrees
    time: Time
    path: str  # relative to the benchmark's folder

    def entropy(self, seed: int) -> tuple[int, ...]:
        """The entropy of the photo's random numbers."""
        return (seed, int(self.split == "test"), self.car, self.heading, TIMES.index(self.time))


def shots(cars: "Sequence[Car]", split: Split, seed: int = 0, scale: float = 1.0) -> list[Shot]:
    """The photos of a split at a scale, each car's together; a smaller scale's are among those of a larger one.

    Raises PlanInvalid.
    """
    if not 0 < scale <= 1:  # also what is not a number
        raise PlanInvalid(f"--scale is {scale}; it must be greater than 0 and at most 1.")
    if len(cars) * (PHOTOS_A_CAR - 1) < PHOTOS[split] - len(cars):
        raise PlanInvalid(f"{len(cars)} cars are too few for the {PHOTOS[split]} photos of the split {split}.")
    ranked = _ranked(cars, split, seed)
    fewest = LEAST_A_CLASS * len({car.name for car in cars})
    chosen = ranked[: max(round(scale * PHOTOS[split]), fewest)]
    return sorted(chosen, key=lambda shot: (shot.car, TIMES.index(shot.time), shot.heading))


def _ranked(cars: "Sequence[Car]", split: Split, seed: int) -> list[Shot]:
    """All photos of a split in the order in which a growing scale takes them; every beginning is evenly spread."""
    lots = [_lot(seed, split, number) for number in range(len(cars))]
    rounds = [[_shot(car, split, number, turn) for turn in range(PHOTOS_A_CAR)] for number, car in enumerate(cars)]
    surplus = len(cars) * PHOTOS_A_CAR - PHOTOS[split]
    by_lot = sorted(range(len(cars)), key=lots.__getitem__)
    for place in range(surplus):  # the last of a car's photos, of as many cars as there are photos too many
        rounds[by_lot[place % len(cars)]].pop()
    ranked = [(turn, lots[number], shot) for number, row in enumerate(rounds) for turn, shot in enumerate(row)]
    ranked.sort(key=lambda entry: entry[:2])
    first: list[Shot] = []
    rest: list[Shot] = []
    taken: dict[str, int] = defaultdict(int)
    for _, _, shot in ranked:
        name = cars[shot.car].name
        (first if taken[name] < LEAST_A_CLASS else rest).append(shot)
        taken[name] += 1
    return first + rest


def _shot(car: "Car", split: Split, number: int, turn: int) -> Shot:
    """The `turn`-th photo of a car: the sequence meets each heading and time once and spreads evenly."""
    heading = HEADINGS[(7 * turn + 11 * number) % len(HEADINGS)]
    time = TIMES[(turn + turn // len(HEADINGS) + number + number // len(HEADINGS)) % len(TIMES)]
    name = f"{car.generation}-{car.colour}-{number:03d}-{heading:03d}-{time.value}.jpg"
    return Shot(split, number, heading, time, f"{_file_name(car.name)}/{_file_name(name)}")


def _lot(seed: int, split: Split, number: int) -> bytes:
    return hashlib.sha256(f"{seed}/{split}/{number}".encode()).digest()


def _file_name(text: str) -> str:
    """A name without path separators."""
    return text.replace("/", "-").replace("\\", "-")
