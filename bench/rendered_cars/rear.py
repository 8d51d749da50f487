"""The back: tail lamps, the strip that links them, plate, bumper, exhausts."""

from functools import lru_cache

from bench.rendered_cars import pictures
from bench.rendered_cars.face import add_plate, plate_kind
from bench.rendered_cars.flanks import rear_edge
from bench.rendered_cars.kit import PLAIN, Kit
from bench.rendered_cars.materials import BRAKE_LIGHT, CHROME, GLOSS_BLACK, RED_LENS, RED_LIGHT, SEAM, Material
from bench.rendered_cars.shapes import Shape, box, ellipse, polygon

Frame = tuple[float, float, float, float]


def add_rear(kit: Kit, colour: str, lit: bool) -> None:
    """Adds the parts of the back."""
    d = kit.shell.design
    edge = rear_edge(d)
    _link(kit, lit)
    _lamps(kit, lit)
    plate_z = max(d.tail_z * d.rear_plate_z, d.ground + 0.22)
    recess = box(-0.33, 0.33, plate_z - 0.09, plate_z + 0.085, 0.03)
    kit.add("trim", SEAM if d.rear_plate_z < 0.58 else GLOSS_BLACK, kit.drawn("rear", recess, 0.002))
    add_plate(kit, "rear", plate_z, plate_kind(colour))
    if d.tail_link != "chrome":
        kit.add("chrome", CHROME, kit.drawn("rear", box(-0.28, 0.28, plate_z + 0.085, plate_z + 0.105), 0.006))
    kit.add("badge", CHROME, kit.drawn("rear", ellipse(0, d.tail_z * 0.89, 0.052, 0.027), 0.006, 0.012))
    reflector = box(d.width * 0.33, d.width * 0.33 + 0.13, edge + 0.03, edge + 0.055)
    kit.stick("reflector", RED_LENS, kit.drawn("tail", reflector, 0.004))
    if d.exhaust != "none":
        z = d.ground + 0.10
        pipe = box(d.width * 0.30, d.width * 0.30 + 0.14, z, z + 0.055, 0.02)
        soup = kit.drawn("tail", pipe, 0.006)
        kit.add("chrome", CHROME, soup)
        if d.exhaust == "dual":
            kit.add("chrome", CHROME, soup.mirrored())


@lru_cache(maxsize=16)
def lens_material(inside: str) -> Material:
    """The glass of a tail lamp."""
    return Material((0.45, 0.03, 0.05), roughness=0.12, clearcoat=0.8, texture=pictures.tail(inside))


def _corner(kit: Kit) -> float:
    """Where the tail's corner ends in the plane of the lamps."""
    d = kit.shell.design
    return d.width / 2 * d.tail_taper - d.bulge * 0.4 + d.tail_plan * 0.95 + d.tail_round * 0.8


def tail_frame(kit: Kit) -> Frame:
    """Left, right, low, high of a tail lamp in the plane around the corner."""
    d = kit.shell.design
    centre = d.tail_z * d.tail_lamp_z
    inner, outer = d.tail_in * d.width / 2, _corner(kit) + d.tail_wrap
    return inner, max(outer, inner + 0.10), centre - d.tail_height / 2, centre + d.tail_height / 2


def _shapes(kit: Kit, frame: Frame) -> list[tuple[Shape, Frame]]:
    """The outlines of a tail lamp, each with the frame of its picture."""
    d = kit.shell.design
    left, right, low, high = frame
    middle, half, flick = (low + high) / 2, (high - low) / 2, d.tail_flick
    kind = d.tail_kind
    if kind == "round":
        radius = min(half * 0.8, 0.085)
        at = _corner(kit) - 0.5 * radius
        return [
            (ellipse(x, middle, radius, radius), (x - radius, x + radius, middle - radius, middle + radius))
            for x in (at - 2.3 * radius, at)
        ]
    if kind == "tower":
        narrow = max(left, _corner(kit) - 0.20)
        tall = (narrow, max(right, narrow + 0.12), low - 0.06, high + 0.10)
        return [
            (
                polygon(
                    [
                        (tall[0], tall[2]),
                        (tall[1], tall[2] + 0.03),
                        (tall[1] - 0.02, tall[3]),
                        (tall[0] + 0.05, tall[3]),
                    ],
                    0.02,
                ),
                tall,
            )
        ]
    if kind == "ell":
        foot = left + 0.55 * (right - left)
        return [(polygon([(left, middle), (foot, middle - half * 0.1), (foot + 0.03, low - 0.03), (right, low + 0.02),
                          (right, high + flick), (left, high)], 0.008), frame)]  # fmt: skip
    if kind == "stripes":
        step = (high - low) / 3
        rows = [(0.05 * k, low + k * step, 0.03 * (2 - k)) for k in range(3)]
        return [
            (polygon([(left + a, z), (right - b, z + flick * 0.5), (right, z + 0.62 * step + flick * 0.5),
                      (left + a, z + 0.62 * step)]), frame)
            for a, z, b in rows
        ]  # fmt: skip
    if kind == "leaf":
        return [(polygon([(left, middle + half * 0.1), (left + 0.4 * (right - left), low), (right - 0.05, low + 0.03),
                          (right, middle + half * 0.8 + flick), (left + 0.5 * (right - left), high),
                          (left, middle + half * 0.5)], 0.008), frame)]  # fmt: skip
    inner = half * d.tail_lamp_taper
    return [(polygon([(left, middle - inner), (right, low + 0.02), (right, high + flick * 0.5), (left, middle + inner)],
                     0.015), frame)]  # fmt: skip


def _lamps(kit: Kit, lit: bool) -> None:
    """Both tail lamps."""
    d = kit.shell.design
    for shape, frame in _shapes(kit, tail_frame(kit)):
        material = lens_material(d.tail_inside if d.tail_kind != "round" else "rings")
        # mypy infers no type for a default of a lambda, which binds this turn's shape.
        kit.stick("trim", GLOSS_BLACK, kit.drawn("tail", lambda a, b, s=shape: s(a, b) + 0.007, 0.002, PLAIN))  # type: ignore[misc]  # no type for a default
        kit.stick("tail_lamp", material, kit.pictured("tail", shape, 0.005, frame))
        if lit:
            glow = kit.drawn("tail", lambda a, b, s=shape: s(a, b) - 0.012, 0.008)  # type: ignore[misc]  # no type for a default
            kit.stick("tail_lamp", RED_LIGHT, glow)


def _link(kit: Kit, lit: bool) -> None:
    """A strip from lamp to lamp."""
    d = kit.shell.design
    if d.tail_link == "none":
        return
    left, _, low, high = tail_frame(kit)
    middle = (low + high) / 2 + (0.3 * (high - low) if d.tail_kind in ("ell", "tower") else 0.0)
    half = 0.02 if d.tail_link != "black" else 0.05
    strip = box(-left - 0.03, left + 0.03, middle - half, middle + half, 0.01)
    material = {"chrome": CHROME, "black": GLOSS_BLACK, "red": BRAKE_LIGHT if lit else RED_LENS}[d.tail_link]
    kit.add("tail_lamp" if d.tail_link == "red" else "trim", material, kit.drawn("rear", strip, 0.004))
