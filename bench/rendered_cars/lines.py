"""The curves along a car's length that its sections follow."""

from dataclasses import dataclass

import numpy as np

from bench.rendered_cars.design import Design
from bench.rendered_cars.soup import Floats

STEP = 0.01


@dataclass(frozen=True, slots=True)
class Lines:
    """Curves sampled along x, from the tail to the nose, and the places along x where parts of the body meet."""

    x: Floats
    top: Floats  # height of the middle of hood, screen, roof, rear window, deck
    belt: Floats  # height of the shoulder
    half: Floats  # half the width
    sill: Floats  # height of the lower edge
    bend: Floats  # how far the sides lie behind the middle
    nose: float
    tail: float
    front_axle: float
    rear_axle: float
    cowl: float
    header: float
    roof_end: float
    base: float  # foot of the rear window

    def at(self, name: str, x: Floats | float) -> Floats:
        """A curve's values at some x."""
        return np.asarray(np.interp(x, self.x, getattr(self, name)))


def smoothstep(x: Floats) -> Floats:
    """From 0 to 1 with no slope at either end."""
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)


def smooth(values: Floats, sigma: float) -> Floats:
    """Gaussian smoothing that keeps straight ends straight."""
    reach = round(3 * sigma / STEP)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets * STEP / sigma) ** 2)
    steps = np.arange(1, reach + 1)
    before = values[0] - steps[::-1] * (values[1] - values[0])
    after = values[-1] + steps * (values[-1] - values[-2])
    return np.convolve(np.concatenate([before, values, after]), kernel / kernel.sum(), "valid")


def draw(d: Design) -> Lines:
    """All curves of a design."""
    nose, tail = d.length / 2, -d.length / 2
    front_axle = nose - d.front_overhang
    cowl = front_axle - d.dash
    header = cowl - d.screen_run
    base = tail + d.deck
    roof_end = min(base + d.back_run, header - 0.5)
    places = (nose, cowl, header, roof_end, base, tail)
    x = np.arange(tail, nose + STEP, STEP)
    top = _top(d, x, places)
    belt = _belt(d, x, top, places)
    return Lines(
        x, top, belt, _half(d, x, front_axle), _sill(d, x), _bend(d, x, places), nose, tail,
        front_axle, front_axle - d.wheelbase, cowl, header, roof_end, base,
    )  # fmt: skip


def _arc(x: Floats, a: tuple[float, float], b: tuple[float, float], sag: float) -> Floats:
    """From a to b along a line that rises by `sag` in its middle."""
    t = np.clip((x - a[0]) / max(b[0] - a[0], 1e-6), 0, 1)
    return a[1] + (b[1] - a[1]) * t + 4 * sag * t * (1 - t)


def _top(d: Design, x: Floats, places: tuple[float, ...]) -> Floats:
    """The silhouette of the middle."""
    nose, cowl, header, roof_end, base, tail = places
    roof_z, header_z = d.height - d.roof_drop, d.height - 0.035
    knots = [(tail, d.tail_z), (base, d.deck_z), (roof_end, roof_z), (header, header_z), (cowl, d.cowl_z)]
    rise = d.height - (roof_z + header_z) / 2
    sags = (0.012 if d.bed == "none" else 0.0, d.back_sag * min(1, d.back_run / 0.6), rise, 0.03)
    top = _arc(x, knots[4], (nose, d.hood_z), d.hood_sag)
    for a, b, sag in zip(knots[:-1], knots[1:], sags, strict=True):
        top = np.where((x >= a[0]) & (x < b[0]), _arc(x, a, b, sag), top)
    return smooth(top, 0.045)


def _belt(d: Design, x: Floats, top: Floats, places: tuple[float, ...]) -> Floats:
    """The shoulder: along the fenders it follows the hood, along the cabin it rises to the rear."""
    nose, cowl, _, roof_end, base, tail = places
    crown = d.hood_crown
    deck_crown = 0.055 if d.bed == "none" else 0.02
    knots_x = [tail, base, max(roof_end, base + 0.05), cowl, (cowl + nose) / 2, nose]
    middle = (d.cowl_z + d.hood_z) / 2 + d.hood_sag - crown
    knots_z = [d.tail_z - deck_crown, min(d.belt_rear, d.deck_z - deck_crown), d.belt_rear, d.belt_front, middle,
               d.hood_z - crown]  # fmt: skip
    belt = np.minimum(np.interp(x, knots_x, knots_z), top - 0.03)
    return np.minimum(smooth(belt, 0.14), top - 0.02)


def _half(d: Design, x: Floats, front_axle: float) -> Floats:
    """Half the width at its widest height."""
    nose, tail = d.length / 2, -d.length / 2
    rear_axle = front_axle - d.wheelbase
    ahead = smoothstep((x - front_axle + 0.3) / (nose - front_axle + 0.5))
    behind = smoothstep((rear_axle + 0.3 - x) / (rear_axle - tail + 0.5))
    return d.width / 2 * (1 - (1 - d.nose_taper) * ahead - (1 - d.tail_taper) * behind)


def _sill(d: Design, x: Floats) -> Floats:
    """The lower edge, which rises under the bumpers."""
    ahead = smoothstep((x - d.length / 2 + 0.6) / 0.6)
    behind = smoothstep((-x - d.length / 2 + 0.7) / 0.7)
    return d.ground + 0.02 * ahead + 0.055 * behind


def _bend(d: Design, x: Floats, places: tuple[float, ...]) -> Floats:
    """Curvature in plan of nose, windscreen, rear window and tail."""
    nose, cowl, header, roof_end, base, tail = places
    bend = d.nose_plan * smoothstep(1 - (nose - x) / (d.front_overhang * 0.95))
    bend -= d.tail_plan * smoothstep(1 - (x - tail) / 0.75)
    reach = max(header - 0.25, roof_end)
    screen = np.interp(x, [reach, (header + cowl) / 2, cowl, cowl + 0.45], [0, 0.8, 1, 0])
    back = np.interp(x, [base - 0.3, base, (roof_end + base) / 2, roof_end + 0.3], [0, 1, 0.8, 0])
    return bend + smooth(d.screen_curve * screen - 0.7 * d.screen_curve * back, 0.08)
