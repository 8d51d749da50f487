"""Road layouts: markings, flaws and roadsides, in metres along (x) and across (y) a road."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench.rendered_cars.camera import Floats

Paint = Literal["white", "yellow", "dark", "patch", "pale", "iron", "shade"]
Backdrop = Literal["wall", "fence", "hedge", "building"]

Point = tuple[float, float]

LANE_M = 3.3
LINE_M = 0.15
REACH_M = 34.0


@dataclass(frozen=True)
class Mark:
    """A polygon on the road, its corners along and across it in metres, and what it is made of."""

    outline: tuple[Point, ...]
    paint: Paint


@dataclass(frozen=True)
class Side:
    """What begins where the road ends: a kerb at `kerb` metres across, a backdrop `behind` metres further."""

    kerb: float
    behind: float
    backdrop: Backdrop
    beyond: Backdrop  # what towers over it
    height: float
    shade: float


@dataclass(frozen=True)
class Road:
    """A stretch of road about the origin, turned by `turn` radians and shifted across by `shift` metres."""

    marks: tuple[Mark, ...]
    sides: tuple[Side, ...]  # at y = +kerb, and at y = -kerb
    turn: float
    shift: tuple[float, float]
    asphalt: float  # albedo
    tint: float  # -1 cold, 1 warm
    wear: float  # 0 fresh paint, 1 hardly any
    speckle: float  # contrast of the grain

    def local(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Places in the world as places along and across the road."""
        cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        return cos * x + sin * y + np.float32(self.shift[0]), cos * y - sin * x + np.float32(self.shift[1])

    @cached_property
    def corners(self) -> Floats:
        """All corners of all marks, one mark after the other, as places (k, 2) in the world."""
        flat = np.array([corner for mark in self.marks for corner in mark.outline]).reshape(-1, 2)
        x, y = flat[:, 0] - self.shift[0], flat[:, 1] - self.shift[1]
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return np.stack((cos * x - sin * y, sin * x + cos * y), 1).astype(np.float32)


def layout(rng: np.random.Generator) -> Road:
    """A random road like those of a town."""
    kind = rng.choice(("street", "hatched", "junction", "parking"), p=(0.42, 0.26, 0.18, 0.14))
    marks = [*_flaws(rng), *_PAINTERS[str(kind)](rng)]
    sides = tuple(
        Side(
            kerb=float(rng.uniform(4.2, 14)),
            behind=float(rng.uniform(1.5, 5.5)),
            backdrop=rng.choice(("wall", "fence", "hedge", "building")),
            beyond=rng.choice(("building", "hedge", "wall"), p=(0.4, 0.45, 0.15)),
            height=float(rng.uniform(1.4, 3.5)),
            shade=float(rng.uniform(0.06, 0.4)),
        )
        for _ in range(2)
    )
    shift = (float(rng.uniform(-8, 8)), float(rng.uniform(-2.4, 2.4)))
    marks += _shade(rng, shift)
    aligned = rng.random() < 0.7
    turn = rng.choice((0, np.pi)) + rng.normal(0, 0.07) if aligned else rng.uniform(0, 2 * np.pi)
    return Road(
        marks=tuple(marks),
        sides=sides,
        turn=float(turn),
        shift=shift,
        asphalt=float(rng.uniform(0.055, 0.14)),
        tint=float(rng.normal(0, 0.5)),
        wear=float(rng.beta(2, 4)),
        speckle=float(rng.uniform(0.5, 1.5)),
    )


def _street(rng: np.random.Generator) -> list[Mark]:
    """Lanes side by side: solid, dashed and double lines, arrows in some lanes."""
    marks: list[Mark] = []
    for lane in range(-3, 4):
        y = lane * LANE_M + float(rng.normal(0, 0.05))
        style = rng.choice(("dashed", "solid", "centre", "blocks", "none"), p=(0.42, 0.2, 0.16, 0.08, 0.14))
        if style == "centre":
            marks += [_band(y - 0.15, "yellow"), _band(y + 0.15, "yellow")]
        elif style == "solid":
            marks.append(_band(y, _pick(rng, "white", "white", "yellow")))
        elif style == "dashed":
            marks += _dashes(y, float(rng.uniform(2.0, 3.5)), float(rng.uniform(3.0, 5.5)), LINE_M, rng)
        elif style == "blocks":
            marks += _dashes(y, 0.75, 0.75, float(rng.uniform(0.3, 0.45)), rng)
        if rng.random() < 0.4:
            marks += _arrow(float(rng.uniform(-9, 9)), y + LANE_M / 2, rng)
    return marks


def _hatched(rng: np.random.Generator) -> list[Mark]:
    """A strip that is not to be driven on, hatched between two lines, in yellow or white, with studs beside it."""
    paint = _pick(rng, "yellow", "yellow", "yellow", "white")
    low, high = float(rng.uniform(-1.6, -0.6)), float(rng.uniform(0.6, 1.6))
    narrow = float(rng.uniform(-0.06, 0.06))

    def edge(y: float, x: float) -> float:
        return y * (1 + narrow * x / 4)

    ends = [((-REACH_M, edge(y, -REACH_M)), (REACH_M, edge(y, REACH_M))) for y in (low, high)]
    marks = [_stroke(both, LINE_M, paint) for both in ends]
    pitch, lean = float(rng.uniform(1.1, 2.4)), float(rng.uniform(-1.5, 1.5))
    bars = [((x, edge(low, x)), (x + lean, edge(high, x + lean))) for x in np.arange(-18, 18, pitch).tolist()]
    marks += [_stroke(both, LINE_M * 1.1, paint) for both in bars]
    for x in np.arange(-16, 16, float(rng.uniform(1.5, 3.0))).tolist():
        marks += _stud(x, edge(low, x) - 0.25)
    return marks + [mark for mark in _street(rng) if abs(mark.outline[0][1]) > 2.4]


def _junction(rng: np.random.Generator) -> list[Mark]:
    """A stop line and a crossing, lanes with arrows before them, a box or a diamond."""
    place = float(rng.uniform(-6, 6))
    width = float(rng.uniform(0.4, 0.55))
    marks = [_stroke(((place, -9), (place, 9)), 0.45, "white")]
    start = place + float(rng.uniform(1.2, 2.5))
    marks += [_stroke(((start, y), (start + 3.6, y)), width, "white") for y in np.arange(-9, 9, 2 * width).tolist()]
    if rng.random() < 0.5:
        marks += _box(place - 11, float(rng.uniform(-4, 1)), rng)
    middle = (place - float(rng.uniform(4, 9)), float(rng.uniform(-3, 3)))
    marks += _diamond(*middle) if rng.random() < 0.6 else _arrow(*middle, rng)
    return marks + [mark for mark in _street(rng) if max(x for x, _ in mark.outline) < place or rng.random() < 0.2]


def _parking(rng: np.random.Generator) -> list[Mark]:
    """Bays side by side, as in a car park."""
    width, depth = float(rng.uniform(2.3, 2.7)), float(rng.uniform(4.8, 5.4))
    paint = _pick(rng, "white", "white", "yellow")
    marks = []
    for row in (-1, 1):
        back, front = row * 1.2, row * (1.2 + depth)
        marks.append(_band(back, paint, 0.1))
        marks += [_stroke(((x, back), (x, front)), 0.1, paint) for x in np.arange(-24, 24, width).tolist()]
    return marks + (_arrow(float(rng.uniform(-6, 6)), 0, rng) if rng.random() < 0.5 else [])


_PAINTERS: dict[str, Callable[[np.random.Generator], list[Mark]]] = {
    "street": _street,
    "hatched": _hatched,
    "junction": _junction,
    "parking": _parking,
}


def _flaws(rng: np.random.Generator) -> list[Mark]:
    """Patches, cracks, sealed joints, wheel tracks, stains and manholes."""
    marks = []
    for _ in range(rng.poisson(1.6)):
        x, y, length, width = rng.uniform((-12, -6, 0.8, 0.6), (12, 6, 7, 2.6))
        ragged = rng.normal((x, y), 0.05, (4, 2))
        corners = np.array(((0, 0), (length, 0), (length, width), (0, width))) + ragged
        marks.append(Mark(_points(corners), "patch" if rng.random() < 0.7 else "pale"))
    for _ in range(rng.poisson(2.0)):
        steps = rng.normal(0, 1, (int(rng.integers(6, 18)), 2)) * 0.28 + rng.normal(0, 0.35, 2)
        trail = rng.uniform((-9, -5), (9, 5)) + np.cumsum(steps, 0)
        width = float(rng.choice((0.02, 0.03, 0.06)))
        marks += [_stroke((a, b), width, "dark") for a, b in pairwise(_points(trail))]
    if rng.random() < 0.35:
        y = float(rng.uniform(-5, 5))
        marks.append(_stroke(((-REACH_M, y), (REACH_M, y + float(rng.normal(0, 0.3)))), 0.05, "dark"))
    for _ in range(rng.poisson(1.2)):
        x, y, long, wide = rng.uniform((-8, -5, 0.1, 0.1), (8, 5, 0.5, 0.5)).tolist()
        marks.append(Mark(_disc(x, y, long, wide, 14), "patch"))
    for _ in range(rng.poisson(0.8)):
        x, y = rng.uniform((-7, -5), (7, 5)).tolist()
        marks += _manhole(x, y, rng)
    return marks


def _shade(rng: np.random.Generator, car: Point) -> list[Mark]:
    """Where houses and poles outside the picture keep the sun away, beside a car at a place on the road."""
    way, away, long = rng.uniform(0, 2 * np.pi), rng.uniform(2.6, 5.5), rng.uniform(8, 30)
    across = (math.cos(way), math.sin(way))
    middle = (car[0] + across[0] * away, car[1] + across[1] * away)
    lot = rng.random()
    if lot < 0.2:  # a house: all beyond a line
        along = (-across[1] * 40, across[0] * 40)
        far = (middle[0] + across[0] * long, middle[1] + across[1] * long)
        return [_stroke((middle, far), 2 * math.hypot(*along), "shade")]
    if lot < 0.4:  # a pole or a tree
        lean = way + rng.uniform(-1.2, 1.2)
        tip = (middle[0] + math.cos(lean) * long, middle[1] + math.sin(lean) * long)
        return [_stroke((middle, tip), float(rng.choice((0.12, 0.2, 0.35))), "shade")]
    return []


def _manhole(x: float, y: float, rng: np.random.Generator) -> list[Mark]:
    radius = float(rng.uniform(0.3, 0.42))
    rim, lid = _disc(x, y, radius * 1.18, radius * 1.18, 28), _disc(x, y, radius, radius, 28)
    bars = [_stroke(((x - radius * 0.6, y + o), (x + radius * 0.6, y + o)), 0.05, "pale") for o in (-0.15, 0.0, 0.15)]
    return [Mark(rim, "pale" if rng.random() < 0.6 else "patch"), Mark(lid, "iron"), *bars]


def _stud(x: float, y: float) -> list[Mark]:
    """A reflector let into the road, with the little shadow that lifts it off."""
    shadow = _stroke(((x - 0.07, y - 0.05), (x + 0.09, y - 0.05)), 0.13, "dark")
    return [shadow, _stroke(((x, y), (x + 0.1, y)), 0.1, "white")]


def _box(x: float, y: float, rng: np.random.Generator) -> list[Mark]:
    size = float(rng.uniform(4, 7))
    corners = ((x, y), (x + size, y), (x + size, y + size), (x, y + size))
    marks = [_stroke((a, b), LINE_M, "yellow") for a, b in zip(corners, (*corners[1:], corners[0]), strict=True)]
    for offset in np.arange(-size + 1, size, 1.2).tolist():
        low, high = max(0.0, -offset), min(size, size - offset)
        for start, end in ((x + low, x + high), (x + size - low, x + size - high)):
            marks.append(_stroke(((start, y + low + offset), (end, y + high + offset)), LINE_M, "yellow"))
    return marks


def _diamond(x: float, y: float) -> list[Mark]:
    corners = ((x - 2.5, y), (x, y + 0.75), (x + 2.5, y), (x, y - 0.75))
    return [_stroke((a, b), 0.2, "white") for a, b in zip(corners, (*corners[1:], corners[0]), strict=True)]


def _arrow(x: float, y: float, rng: np.random.Generator) -> list[Mark]:
    """An arrow five metres long: ahead, to a side, or both."""
    way = 1.0 if rng.random() < 0.5 else -1.0
    bend = float(rng.choice((-1.0, 1.0)))
    shaft = [_stroke(((x, y), (x + 2.6 * way, y)), 0.16, "white")]
    ahead, aside = [((0, True), (1, False)), ((1, True), (0, True)), ((0, True), (1, True))][int(rng.integers(3))]
    if ahead[1] if ahead[0] == 0 else aside[1]:
        tip = np.array(((2.4, -0.42), (2.4, 0.42), (4.6, 0))) * (way, 1) + (x, y)
        shaft.append(Mark(_points(tip), "white"))
    else:
        shaft.append(_stroke(((x + 2.4 * way, y), (x + 3.4 * way, y + 0.55 * bend)), 0.2, "white"))
        tip = np.array(((2.9, 0.85), (3.75, 0.25), (4.3, 1.25))) * (way, bend) + (x, y)
        shaft.append(Mark(_points(tip), "white"))
    return shaft


def _band(y: float, paint: Paint, width: float = LINE_M) -> Mark:
    return _stroke(((-REACH_M, y), (REACH_M, y)), width, paint)


def _dashes(y: float, length: float, gap: float, width: float, rng: np.random.Generator) -> list[Mark]:
    starts = np.arange(-REACH_M, REACH_M, length + gap) + float(rng.uniform(0, length + gap))
    return [_stroke(((x, y), (x + length, y)), width, "white") for x in starts.tolist()]


def _stroke(ends: tuple[Point, Point], width: float, paint: Paint) -> Mark:
    (x, y), (to_x, to_y) = ends
    scale = width / 2 / max(math.hypot(to_x - x, to_y - y), 1e-6)
    dx, dy = (y - to_y) * scale, (to_x - x) * scale
    return Mark(((x - dx, y - dy), (to_x - dx, to_y - dy), (to_x + dx, to_y + dy), (x + dx, y + dy)), paint)


def _disc(x: float, y: float, long: float, wide: float, corners: int) -> tuple[Point, ...]:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return _points(np.stack((x + long * np.cos(angle), y + wide * np.sin(angle)), 1))


def _points(array: npt.NDArray[np.float64]) -> tuple[Point, ...]:
    return tuple((x, y) for x, y in array.tolist())


def _pick(rng: np.random.Generator, *paints: Paint) -> Paint:
    return paints[int(rng.integers(len(paints)))]
