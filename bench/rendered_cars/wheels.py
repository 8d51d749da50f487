"""Wheels: tyres, rims drawn as pictures on a dished disc, and the wells that they stand in."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from bench.rendered_cars.kit import Kit
from bench.rendered_cars.materials import TYRE, WELL, Material
from bench.rendered_cars.soup import cut, turned

PIXELS = 192
DRAWN = 2 * PIXELS  # drawn larger, then shrunk: smooth edges


def add_wheels(kit: Kit) -> None:
    """Four wheels in their wells."""
    shell, d = kit.shell, kit.shell.design
    r = d.wheel_radius
    rim = r * (0.70 + 0.4 * (r - 0.30))
    for axle in (shell.lines.front_axle, shell.lines.rear_axle):
        out = shell.wheel_offset(axle)
        tyre = [(rim * 0.97, -0.02), (rim, 0.0), (r * 0.9, 0.004), (r * 0.975, -0.012), (r, -0.035), (r, -0.19),
                (r * 0.96, -0.21), (rim * 0.6, -0.21)]  # fmt: skip
        kit.stick("tyre", TYRE, turned(tyre[::-1], (axle, out, r), 40))
        disc = [(0.0, -0.022), (rim * 0.25, -0.018), (rim * 0.5, -0.022), (rim * 0.85, -0.028), (rim * 0.92, -0.012),
                (rim, -0.001)]  # fmt: skip
        kit.stick("rim", rim_material(d.wheel), turned(disc[::-1], (axle, out, r), 40))
        inside = turned([(shell.arch, -0.11), (shell.arch, -0.30), (0.02, -0.30)], (axle, out, r), 28)
        # The well's lower half would show below the body.
        kit.stick("well", WELL, cut(inside, inside.points[:, 2] - shell.lines.at("sill", inside.points[:, 0]) - 0.04))


@lru_cache(maxsize=64)
def rim_material(kind: str) -> Material:
    """A rim's picture as a material."""
    return Material((0.6, 0.6, 0.62), metallic=0.5, roughness=0.35, texture=picture(kind))


def picture(kind: str) -> npt.NDArray[np.uint8]:
    """A rim seen from the side."""
    image = Image.new("RGB", (DRAWN, DRAWN), (14, 14, 15))
    draw = ImageDraw.Draw(image)
    bright, edge = ((176, 178, 182), (120, 122, 126))
    if kind.startswith("dark"):
        bright, edge = ((58, 59, 62), (150, 152, 155))
    centre, full = DRAWN / 2, DRAWN / 2
    _ring(draw, centre, full, full * 0.90, edge if kind.startswith("dark") else bright)
    _ring(draw, centre, full * 0.45, full * 0.40, (40, 40, 42))
    style = kind.removeprefix("dark_")
    if style == "cover":
        _ring(draw, centre, full * 0.90, 0, (150, 152, 155))
        for k in range(12):
            _spoke(draw, centre, k * 30, full * 0.60, full * 0.78, 4.0, 4.0, (40, 40, 42))
    count, inner, outer, gap = {
        "five": (5, 15, 11, 0), "ten": (10, 8, 5.5, 0), "twin": (5, 6, 5, 11), "multi": (16, 4, 3.2, 0),
        "turbine": (9, 10, 7, 0), "mesh": (10, 3.4, 3.0, 9), "petal": (6, 9, 21, 0), "cover": (0, 0, 0, 0),
    }[style]  # fmt: skip
    for k in range(count):
        turn = k * 360 / count + 90
        lean = 22 if style == "turbine" else 0
        for side in (-1, 1) if gap else (0,):
            _spoke(draw, centre, turn + side * gap, full * 0.12, full * 0.93, inner, outer, bright, lean)
    _ring(draw, centre, full * 0.22, 0, bright)
    _ring(draw, centre, full * 0.10, 0, edge)
    for k in range(5):
        angle = np.radians(k * 72 + 54)
        x, y = centre + np.cos(angle) * full * 0.165, centre + np.sin(angle) * full * 0.165
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(30, 30, 32))
    return np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS))


def _ring(draw: ImageDraw.ImageDraw, centre: float, outer: float, inner: float, fill: tuple[int, int, int]) -> None:
    """A disc, or a band."""
    box = (centre - outer, centre - outer, centre + outer, centre + outer)
    if inner:
        draw.ellipse(box, outline=fill, width=round(outer - inner))
    else:
        draw.ellipse(box, fill=fill)


def _spoke(
    draw: ImageDraw.ImageDraw, centre: float, turn: float, near: float, far: float, inner: float, outer: float,
    fill: tuple[int, int, int], lean: float = 0.0,
) -> None:  # fmt: skip
    """A spoke whose half-widths at both ends are angles at the rim."""
    rim = DRAWN / 2

    def at(radius: float, angle: float, half: float) -> tuple[float, float]:
        """A corner, `half` beside the spoke's middle."""
        along, across = np.radians(angle), np.radians(half) * rim
        return (centre + radius * np.cos(along) - across * np.sin(along),
                centre + radius * np.sin(along) + across * np.cos(along))  # fmt: skip

    draw.polygon([at(near, turn, inner), at(far, turn + lean, outer), at(far, turn + lean, -outer),
                  at(near, turn, -inner)], fill=fill)  # fmt: skip
