"""The surface of a car's body: the curves along its length, and the sections lofted over them."""

from dataclasses import dataclass

import numpy as np

from bench.rendered_cars.design import Design
from bench.rendered_cars.soup import Floats, Soup, cut, grid

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


STATIONS = 92
RINGS = 9
SIDE_POINTS = 16
UPPER_POINTS = 22
# Half-widths of the flank from the sill (0) to the shoulder (1), as fractions of what the bulge takes away.
FLANK_Z = (0.0, 0.08, 0.2, 0.4, 0.58, 0.72, 0.85, 1.0)
FLANK_IN = (1.30, 0.95, 0.45, 0.10, 0.0, 0.08, 0.35, 0.95)


@dataclass(frozen=True, slots=True)
class Shell:
    """The surface with open wheel arches, and what it was drawn from."""

    design: Design
    lines: Lines
    surface: Soup
    arch: float  # radius of the wheel arches

    def wheel_offset(self, axle: float) -> float:
        """How far out a wheel's outer face stands."""
        return float(self.lines.at("half", axle)) + self.design.flare * 0.6 - 0.025

    def cabin_half(self, x: Floats, z: Floats) -> Floats:
        """Half the cabin's width at a height, its glass leaning in."""
        d, belt = self.design, self.lines.at("belt", x)
        shoulder = self.lines.at("half", x) - d.bulge * FLANK_IN[-1] * 0.9 - d.shelf
        return np.asarray(shoulder - d.tumblehome * (z - belt) / max(d.height - d.belt_rear, 0.2))


def loft(d: Design) -> Shell:
    """The shell of a design."""
    lines = draw(d)
    stations = _stations(d, lines)
    sections = np.stack([_section(d, lines, x) for x in stations])
    sections = np.concatenate([_cap(sections[0], -d.tail_round), sections, _cap(sections[-1], d.nose_round)])
    points = _sculpt(d, lines, sections)
    mirrored = points[:, ::-1] * np.array([1.0, -1.0, 1.0])
    bare = grid(np.concatenate([points, mirrored[:, 1:]], axis=1)[:, ::-1])
    # Where a point stood before the bending, so that windows can follow the bends of the surface.
    unbent = np.repeat(sections[:, 0, 0], bare.points.shape[0] // len(sections))
    surface = Soup(bare.points, bare.normals, np.stack([unbent, bare.uv[:, 0]], -1), bare.faces)
    arch = d.wheel_radius + 0.035 + 0.1 * (d.wheel_radius - 0.28)
    from_axles = [
        np.hypot(surface.points[:, 0] - axle, surface.points[:, 2] - d.wheel_radius)
        for axle in (lines.front_axle, lines.rear_axle)
    ]
    return Shell(d, lines, cut(surface, np.minimum(*from_axles) - arch), arch)


def _stations(d: Design, lines: Lines) -> Floats:
    """Places of sections, denser where the silhouette climbs."""
    x = lines.x
    slope = np.gradient(lines.top, x)
    density = np.sqrt(1 + (1.6 * slope) ** 2) + 14 * np.abs(np.gradient(smooth(slope, 0.03), x)) * 0.1
    along = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    first, last = np.interp([lines.tail + d.tail_round, lines.nose - d.nose_round], x, along)
    return np.asarray(np.interp(np.linspace(first, last, STATIONS), along, x))


def _section(d: Design, lines: Lines, x: float) -> Floats:
    """The left half of a section, from the middle of the floor to the middle of the roof."""
    half, sill, belt, top = (float(lines.at(name, x)) for name in ("half", "sill", "belt", "top"))
    zn = np.linspace(0, 1, SIDE_POINTS)
    inward = d.bulge * np.interp(zn, FLANK_Z, FLANK_IN)
    inward = np.convolve(np.pad(inward, 1, "edge"), (0.25, 0.5, 0.25), "valid")
    cabin = float(smoothstep(np.array((top - belt) / 0.3)))
    doors = float(smoothstep(np.array(1.15 - abs(x - (lines.front_axle + lines.rear_axle) / 2) / d.wheelbase * 2.2)))
    # A crease: the flank below it falls back a little between the wheels.
    under = np.clip((d.crease_z - zn) / 0.10, 0, 1) * np.clip((zn - 0.12) / 0.4, 0, 1)
    inward = inward + d.crease * under * (0.35 + doors)
    z = sill + (belt - sill) * zn
    y = half - inward
    radius = np.abs(np.hypot(x - _near(lines, x), z - d.wheel_radius) - d.wheel_radius - 0.04)
    y += d.flare * np.exp(-((radius / 0.10) ** 2))
    floor = np.array([[0.0, sill + 0.01], [y[0] * 0.55, sill + 0.01], [y[0] * 0.96, sill]])
    shoulder = y[-1] - d.shelf * cabin
    upper = _upper(d, shoulder, belt, top, cabin)
    outline = np.concatenate([floor, np.stack([y, z], -1), upper])
    return np.column_stack([np.full(len(outline), x), outline])


def _near(lines: Lines, x: float) -> float:
    """The axle nearer to x."""
    return lines.front_axle if x > (lines.front_axle + lines.rear_axle) / 2 else lines.rear_axle


def _upper(d: Design, shoulder: float, belt: float, top: float, cabin: float) -> Floats:
    """From the shoulder over the roof's side, or the hood's, to the middle."""
    angle = np.linspace(0, 1, UPPER_POINTS) ** 0.9 * np.pi / 2
    exponent = 2.4 + (d.roof_square - 2.4) * cabin
    across = np.cos(angle) ** (2 / exponent)
    up = np.sin(angle) ** (2 / exponent)
    across[-1], up[-1] = 0.0, 1.0
    z = belt + (top - belt) * up
    lean = d.tumblehome * (z - belt) / max(d.height - d.belt_rear, 0.2)
    # Glass is a little rounder than a leaning plane.
    round_glass = 0.02 * cabin * 4 * up * (1 - up)
    return np.stack([np.maximum(shoulder - lean + round_glass, 0) * across, z], -1)


def _cap(outline: Floats, depth: float) -> Floats:
    """Rings that shrink from the last section to its centre while they round out lengthwise, in order of x."""
    angle = np.linspace(0, np.pi / 2, RINGS + 1)[1:]
    exponent = 2.3
    shrink = np.cos(angle) ** (2 / exponent)
    shrink[-1] = 0.0
    out = np.sin(angle) ** (2 / exponent)
    centre = np.array([0.0, (outline[0, 2] + outline[-1, 2]) / 2])
    rings = np.stack(
        [
            np.column_stack([outline[:, 0] + depth * o, centre + (outline[:, 1:] - centre) * s])
            for s, o in zip(shrink, out, strict=True)
        ]
    )
    return rings if depth > 0 else rings[::-1]


def _sculpt(d: Design, lines: Lines, points: Floats) -> Floats:
    """Bends nose, screens and tail in plan, and leans nose and tail back above and below their bumpers."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    half = lines.at("half", x)
    moved = x - lines.at("bend", x) * np.abs(y / half) ** 2.4
    for end, sign, rake, bumper in ((lines.nose, 1, d.nose_rake, 0.50), (lines.tail, -1, d.tail_rake, 0.55)):
        weight = smoothstep(1 - np.abs(x - end) / 0.5)
        height = d.hood_z if sign > 0 else d.tail_z
        above = np.clip((z - height * bumper) / (height * (1 - bumper)), 0, 1.3)
        below = np.clip((height * 0.42 - z) / (height * 0.42 - d.ground), 0, 1)
        moved = moved - sign * weight * (rake * above + 0.05 * below**1.5)
    return np.stack([moved, y, z], -1)
