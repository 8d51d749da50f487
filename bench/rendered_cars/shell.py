"""The body as one smooth surface: sections set along the length, closed by a rounded nose and tail."""

from dataclasses import dataclass

import numpy as np

from bench.rendered_cars.design import Design
from bench.rendered_cars.lines import Lines, draw, smooth, smoothstep
from bench.rendered_cars.soup import Floats, Soup, cut, grid

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
