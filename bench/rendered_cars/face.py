"""The front: head lamps, grille, intakes, fog lamps, plate."""

from functools import lru_cache

from bench.rendered_cars import pictures
from bench.rendered_cars.kit import PLAIN, Kit
from bench.rendered_cars.materials import BULB, CHROME, DAYLIGHT, GLOSS_BLACK, PLASTIC, SILVER, Material, paint
from bench.rendered_cars.shapes import Corner, Shape, box, ellipse, polygon
from bench.rendered_cars.soup import card

PLATE = (0.26, 0.058)  # half of width and height


def add_face(kit: Kit, colour: str, lit: bool) -> None:
    """Adds the parts of the front."""
    _intake(kit)
    _grille(kit, colour)
    _head_lamps(kit, lit)
    _fog_lamps(kit, lit)
    d = kit.shell.design
    z = max(d.hood_z * d.grille_z - d.grille_height / 2 - 0.075, d.ground + 0.15)
    add_plate(kit, "front", z, plate_kind(colour))


def add_plate(kit: Kit, region: str, z: float, kind: str) -> None:
    """A number plate that stands a little off the body, its lower edge touching."""
    way = 1.0 if region == "front" else -1.0
    reach = max(way * float(kit.spot(region, y, z + dz)[0][0]) for y in (0.0, 0.2) for dz in (-0.05, 0.05))
    x = way * (reach + 0.012)
    kit.add("plate", GLOSS_BLACK, card((x - way * 0.004, 0, z), (0, way * 0.272, 0), (0, 0, 0.068)))
    kit.add("plate", plate_material(kind), card((x, 0, z), (0, way * PLATE[0], 0), (0, 0, PLATE[1])))


def plate_kind(colour: str) -> str:
    """The kind of number plate. It depends on the paint alone, so that it says nothing about the name."""
    return "white" if len(colour) % 2 else "green"


@lru_cache(maxsize=4)
def plate_material(kind: str) -> Material:
    """A plate that cannot be read."""
    return Material((0.85, 0.86, 0.84), roughness=0.45, texture=pictures.plate(kind))


@lru_cache(maxsize=64)
def lamp_material(inside: str, slant: bool) -> Material:
    """The glass of a head lamp with what shows behind it."""
    return Material((0.5, 0.5, 0.5), metallic=0.25, roughness=0.12, clearcoat=0.8, texture=pictures.head(inside, slant))


@lru_cache(maxsize=64)
def grille_material(kind: str, bars: int, bright: bool) -> Material:
    """A grille's pattern."""
    return Material((0.1, 0.1, 0.1), metallic=0.3, roughness=0.35, texture=pictures.grille(kind, bars, bright))


def _grille(kit: Kit, colour: str) -> None:
    """The grille with its frame."""
    d = kit.shell.design
    half = d.grille_width * d.width / 2
    centre, height = d.hood_z * d.grille_z, d.grille_height
    kind = d.grille_kind
    if kind == "none":
        slot = box(-half * 0.8, half * 0.8, centre + 0.02, centre + 0.045, 0.012)
        kit.add("grille", GLOSS_BLACK, kit.drawn("front", slot, 0.003))
        return
    if kind == "single":
        height *= 0.55
    low, high = centre - height / 2, centre + height / 2
    lower = half * d.grille_taper if kind != "vee" else half * 0.55
    corners = [(-half, high), (half, high), (lower, low), (-lower, low)]
    if kind == "slats":  # two openings beside a painted middle
        for side in (-1, 1):
            shape = box(min(side * 0.035, side * half), max(side * 0.035, side * half), low, high, 0.02)
            _framed(kit, shape, colour, (-half, half, low, high))
    else:
        _framed(kit, polygon(corners, 0.025), colour, (-half, half, low, high))
    badge = CHROME if d.grille_frame != "black" else SILVER
    kit.add("badge", badge, kit.drawn("front", ellipse(0, high - min(0.05, height / 2), 0.055, 0.028), 0.008, 0.012))


def _framed(kit: Kit, shape: Shape, colour: str, frame: tuple[float, float, float, float]) -> None:
    """An opening in its frame."""
    d = kit.shell.design
    width = {"chrome": 0.020, "black": 0.030, "paint": 0.0, "none": 0.0}[d.grille_frame]
    if width:
        material = CHROME if d.grille_frame == "chrome" else GLOSS_BLACK
        kit.add("grille", material, kit.drawn("front", lambda a, b: shape(a, b) + width, 0.002))
    if d.grille_frame == "paint":
        kit.add("paint", paint(colour), kit.drawn("front", lambda a, b: shape(a, b) + 0.012, 0.002))
    bars = max(3, round(d.grille_height / 0.045))
    pattern = grille_material(d.grille_kind, bars, d.grille_frame == "chrome")
    kit.add("grille", pattern, kit.pictured("front", shape, 0.005, frame))


def _intake(kit: Kit) -> None:
    """Openings low in the bumper, and its dark lower edge."""
    d = kit.shell.design
    half, height = d.intake_width * d.width / 2, d.intake_height
    low = d.ground + 0.085
    if d.intake_kind == "wide":
        kit.add("grille", PLASTIC, kit.drawn("front", box(-half, half, low, low + height, 0.03), 0.004))
    if d.intake_kind == "smile":
        corners = [(-half, low + height * 1.3), (-half * 0.7, low), (half * 0.7, low), (half, low + height * 1.3),
                   (half * 0.6, low + height * 0.8), (-half * 0.6, low + height * 0.8)]  # fmt: skip
        kit.add("grille", PLASTIC, kit.drawn("front", polygon(corners), 0.004))
    if d.intake_kind == "split":
        shape = polygon(
            [(half * 0.6, low), (half * 1.15, low + 0.02), (half * 1.2, low + height * 1.8), (half * 0.9, low + height)]
        )
        kit.stick("grille", PLASTIC, kit.drawn("nose", shape, 0.004))
        kit.add(
            "grille", PLASTIC, kit.drawn("front", box(-half * 0.5, half * 0.5, low, low + height * 0.7, 0.02), 0.004)
        )


def _corner(kit: Kit) -> float:
    """Where the nose's corner ends in the plane of the lamps."""
    d = kit.shell.design
    return d.width / 2 * d.nose_taper - d.bulge * 0.5 + d.nose_plan * 0.95 + d.nose_round * 0.8


def head_frame(kit: Kit) -> tuple[float, float, float, float]:
    """Left, right, low, high of a head lamp in the plane around the corner."""
    d = kit.shell.design
    centre = d.hood_z * d.head_z
    inner, outer = d.head_in * d.width / 2, _corner(kit) + d.head_wrap
    return inner, max(outer, inner + 0.12), centre - d.head_height / 2, centre + d.head_height / 2


def _outline(kind: str, frame: tuple[float, float, float, float], taper: float, flick: float) -> list[Corner]:
    """A lamp's corners, from its inner end."""
    left, right, low, high = frame
    middle, half, wide = (low + high) / 2, (high - low) / 2, right - left
    if kind == "block":
        return [(left, low), (right, low + flick * 0.3), (right, high + flick * 0.3), (left, high)]
    if kind in ("bar", "split"):
        slim, rise = half * 0.5, flick * 0.7
        return [(left, middle - slim), (right, middle - slim * 0.8 + rise), (right, middle + slim + rise),
                (left, middle + slim)]  # fmt: skip
    if kind == "leaf":
        return [(left, middle - half * 0.45), (left + 0.30 * wide, low), (left + 0.62 * wide, low + 0.02),
                (right, middle + half * 0.45 + flick), (right - 0.02, high + flick * 0.8), (left + 0.62 * wide, high),
                (left + 0.25 * wide, middle + half * 0.55)]  # fmt: skip
    return [
        (left, middle - half * taper),
        (left + 0.3 * wide, low),
        (right - 0.06, low + 0.02 + flick * 0.5),
        (right, high + flick),
        (right - 0.12, high + flick * 0.9),
        (left, middle + half * taper - 0.01),
    ]


def _head_lamps(kit: Kit, lit: bool) -> None:
    """Both head lamps, their bulbs alight at night."""
    d = kit.shell.design
    frame = left, right, low, high = head_frame(kit)
    width, height, middle = right - left, high - low, (low + high) / 2
    shape: Shape = polygon(_outline(d.head_kind, frame, d.head_taper, d.head_flick), 0.012)
    if d.head_kind == "round":
        radius = min(height * 0.62, 0.12)
        at = min(left + 1.4 * radius, _corner(kit) - 1.4 * radius)
        shape = ellipse(at, middle, radius, radius)
        frame = (at - radius, at + radius, middle - radius, middle + radius)
    material = lamp_material("round" if d.head_kind == "round" else d.head_inside, d.head_flick > 0.05)
    kit.stick("trim", GLOSS_BLACK, kit.drawn("nose", lambda a, b: shape(a, b) + 0.008, 0.002, PLAIN))
    kit.stick("head_lamp", material, kit.pictured("nose", shape, 0.005, frame))
    if d.head_kind == "split":
        below = (left + 0.3 * width, right - 0.12, middle - height * 1.15, middle - height * 0.55)
        kit.stick("trim", GLOSS_BLACK, kit.drawn("nose", box(*below, 0.02), 0.002))
        frame = (below[0] + 0.01, below[1] - 0.01, below[2] + 0.01, below[3] - 0.01)
        kit.stick("head_lamp", material, kit.pictured("nose", box(*frame, 0.018), 0.005, frame))
    if lit:
        left, right, low, high = frame
        rise = 0.0 if d.head_kind in ("round", "block", "split") else d.head_flick * 0.35
        at, radius = left + 0.36 * (right - left), min(0.36 * (high - low), 0.055)
        if d.head_kind == "bar":
            radius *= 0.6
        kit.stick(
            "head_lamp", BULB, kit.drawn("nose", ellipse(at, (low + high) / 2 + rise, radius * 1.3, radius), 0.008)
        )
        glow = kit.drawn("nose", lambda a, b: shape(a, b) - 0.02, 0.007)
        kit.stick("head_lamp", DAYLIGHT, glow)


def _fog_lamps(kit: Kit, lit: bool) -> None:
    """Small lamps or pockets low in the bumper's corners."""
    d = kit.shell.design
    if d.fog_kind == "none":
        return
    size, z = d.fog_size, d.ground + 0.16
    at = _corner(kit) - 0.32
    if d.fog_kind == "round":
        kit.stick("trim", PLASTIC, kit.drawn("nose", ellipse(at, z, size * 0.8, size * 0.65), 0.004))
        kit.stick("fog_lamp", SILVER, kit.drawn("nose", ellipse(at, z, size * 0.42, size * 0.4), 0.007))
    if d.fog_kind == "slot":
        kit.stick(
            "fog_lamp", DAYLIGHT if lit else SILVER, kit.drawn("nose", box(at - size, at + size, z, z + 0.025), 0.005)
        )
    if d.fog_kind == "pocket":
        corners = [
            (at - size * 0.7, z - 0.04),
            (at + size, z - 0.01),
            (at + size * 1.3, z + 0.11),
            (at + size * 0.6, z + 0.08),
        ]
        kit.stick("trim", PLASTIC, kit.drawn("nose", polygon(corners, 0.02), 0.006))
