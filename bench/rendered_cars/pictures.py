"""Drawn textures for detail too fine for triangles: lamps, grilles, plates."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Picture = npt.NDArray[np.uint8]
Grey = tuple[int, int, int]
STROKES = (
    (0, 0, 1, 0.16),
    (0, 0.42, 1, 0.58),
    (0, 0.84, 1, 1),
    (0, 0, 0.28, 0.5),
    (0.72, 0, 1, 0.5),
    (0, 0.5, 0.28, 1),
    (0.72, 0.5, 1, 1),
)
SCALE = 2  # drawn larger, then shrunk: smooth edges


def _canvas(width: int, height: int, fill: Grey) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A larger canvas."""
    image = Image.new("RGB", (width * SCALE, height * SCALE), fill)
    return image, ImageDraw.Draw(image)


def _done(image: Image.Image) -> Picture:
    """The canvas at its size."""
    return np.asarray(image.resize((image.width // SCALE, image.height // SCALE), Image.Resampling.LANCZOS))


def head(inside: str, slant: bool) -> Picture:
    """Behind a head lamp's glass; the left is the inner end."""
    image, draw = _canvas(160, 80, (74, 77, 82))
    w, h = image.size
    black, dark, silver, bright = (16, 17, 19), (38, 40, 44), (122, 126, 132), (222, 226, 232)
    lean = -0.12 * h if slant else 0.0

    def bowl(at: float, radius: float, core: Grey) -> None:
        """A reflector or a projector, lit from above."""
        y = h * 0.5 + lean
        for size, fill in ((1.0, silver), (0.82, core)):
            r = radius * size * h
            draw.ellipse((at * w - r, y - r, at * w + r, y + r), fill=fill)
        r = radius * 0.7 * h
        shade = ((core[0] + silver[0]) // 2, (core[1] + silver[1]) // 2, (core[2] + silver[2]) // 2)
        draw.chord((at * w - r, y - r, at * w + r, y + r), 195, 345, fill=shade)

    if inside == "round":
        for size, fill in ((0.0, (150, 153, 158)), (0.10, (96, 99, 104)), (0.30, (176, 179, 184))):
            draw.ellipse((w * size, h * size, w * (1 - size), h * (1 - size)), fill=fill)
    if inside == "reflector":
        draw.rectangle((0, 0, w, h), fill=(140, 144, 150))
        bowl(0.38, 0.42, (188, 191, 197))
        draw.rectangle((w * 0.80, 0, w, h), fill=(186, 112, 44))
    if inside in ("projector", "twin", "drl_low", "drl_top"):
        draw.polygon([(0, 0), (w * 0.62, 0), (w * 0.75, h), (0, h)], fill=black if inside == "drl_top" else dark)
        draw.polygon([(w * 0.62, 0), (w, 0), (w, h), (w * 0.75, h)], fill=silver)
        bowl(0.36, 0.34, (58, 61, 68))
    if inside == "twin":
        bowl(0.66, 0.30, (58, 61, 68))
    if inside == "drl_low":
        draw.line([(0, h * 0.84), (w * 0.6, h * 0.88), (w, h * 0.6)], fill=bright, width=h // 7)
    if inside == "drl_top":
        draw.line([(0, h * 0.16), (w * 0.55, h * 0.10), (w, h * 0.10)], fill=bright, width=h // 7)
    if inside == "cubes":
        draw.rectangle((0, 0, w, h), fill=black)
        for k in range(4):
            x = w * (0.08 + 0.22 * k)
            draw.rectangle((x, h * 0.3, x + w * 0.16, h * 0.7), fill=silver)
            draw.rectangle((x + w * 0.03, h * 0.36, x + w * 0.13, h * 0.56), fill=bright)
    return _done(image)


def tail(inside: str) -> Picture:
    """Behind a tail lamp's glass; the left is the inner end."""
    image, draw = _canvas(128, 96, (118, 10, 16))
    w, h = image.size
    white, amber, deep, red = (176, 168, 166), (188, 92, 30), (58, 5, 9), (168, 16, 24)
    if inside == "banded":
        draw.rectangle((0, h * 0.44, w, h * 0.60), fill=white)
    if inside == "inner":
        draw.polygon([(0, h * 0.2), (w * 0.34, h * 0.3), (w * 0.26, h * 0.8), (0, h * 0.9)], fill=white)
        draw.rectangle((w * 0.42, h * 0.30, w, h * 0.44), fill=red)
    if inside == "amber":
        draw.rectangle((0, h * 0.72, w, h), fill=amber)
        draw.rectangle((0, h * 0.54, w, h * 0.72), fill=white)
    if inside == "rings":
        draw.ellipse((0, 0, w, h), fill=red)
        draw.ellipse((w * 0.28, h * 0.28, w * 0.72, h * 0.72), fill=deep)
    if inside == "dark":
        draw.rectangle((0, 0, w, h), fill=(44, 7, 10))
        draw.line([(w * 0.05, h * 0.2), (w * 0.95, h * 0.2), (w * 0.95, h * 0.85)], fill=red, width=h // 9)
    if inside == "led":
        draw.rectangle((0, 0, w, h), fill=(72, 7, 11))
        for k in range(3):
            draw.rectangle((w * 0.06, h * (0.16 + 0.27 * k), w * 0.94, h * (0.28 + 0.27 * k)), fill=red)
        draw.rectangle((w * 0.06, h * 0.70, w * 0.4, h * 0.82), fill=white)
    if inside == "corner":
        draw.polygon([(w, h), (w * 0.55, h), (w, h * 0.35)], fill=amber)
        draw.polygon([(0, h), (w * 0.45, h), (w * 0.2, h * 0.65), (0, h * 0.6)], fill=white)
    return _done(image)


def cabin(seats: float) -> Picture:
    """What shows through a windscreen: the dash along its foot, the seats hardly lighter than the dark."""
    image, draw = _canvas(192, 96, (10, 12, 13))
    w, h = image.size
    for at in (0.28, 0.72):
        draw.rounded_rectangle((w * (at - 0.10), h * seats, w * (at + 0.10), h), radius=h * 0.1, fill=(24, 25, 26))
        head = (w * (at - 0.055), h * (seats - 0.17), w * (at + 0.055), h * (seats - 0.02))
        draw.rounded_rectangle(head, radius=h * 0.05, fill=(27, 28, 29))
    draw.polygon([(0, h), (0, h * 0.80), (w * 0.5, h * 0.74), (w, h * 0.80), (w, h)], fill=(35, 36, 37))
    draw.ellipse((w * 0.66, h * 0.66, w * 0.80, h * 0.95), outline=(13, 14, 14), width=h // 40)
    draw.rectangle((w * 0.465, h * 0.04, w * 0.535, h * 0.11), fill=(28, 29, 30))
    return _done(image)


def grille(kind: str, bars: int, bright: bool) -> Picture:
    """A grille's pattern over its whole width."""
    image, draw = _canvas(192, 64, (10, 10, 11))
    w, h = image.size
    metal: Grey = (190, 192, 196) if bright else (58, 59, 62)
    if kind in ("bars", "vee", "slats", "single"):
        count = {"single": 1, "slats": bars + 1}.get(kind, bars)
        thick = h / count * (0.34 if bright else 0.42)
        for k in range(count):
            y = h * (k + 0.5) / count
            draw.rectangle((0, y - thick / 2, w, y + thick / 2), fill=metal)
    if kind == "fins":
        for k in range(9):
            x = w * (k + 0.5) / 9
            draw.rectangle((x - w * 0.02, 0, x + w * 0.02, h), fill=metal)
    if kind == "mesh":
        grid: Grey = (92, 94, 98) if bright else (44, 45, 47)
        for k in range(-8, 26):
            draw.line([(k * w / 16, 0), (k * w / 16 + h, h)], fill=grid, width=5)
            draw.line([(k * w / 16 + h, 0), (k * w / 16, h)], fill=grid, width=5)
    return _done(image)


def plate(kind: str) -> Picture:
    """A number plate with marks in place of letters."""
    back = {"white": (226, 228, 226), "green": (188, 214, 170)}[kind]
    image, draw = _canvas(104, 24, back)
    w, h = image.size
    ink = (70, 74, 78)
    for k in range(8):
        if k == 3:
            continue
        x, y, wide, tall = w * (0.075 + 0.108 * k), h * 0.24, w * 0.07, h * 0.52
        for number, (left, top, right, low) in enumerate(STROKES):
            if (k * 5 + number * 3) % 7 > 1:
                draw.rectangle((x + left * wide, y + top * tall, x + right * wide, y + low * tall), fill=ink)
    return _done(image)
