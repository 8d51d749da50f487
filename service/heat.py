"""Pictures of why photos match: each photo dimmed, and its map of heat over it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from model.card import InputSpec
from model.explain import Explanation, Heat
from model.images.box import Box
from model.images.sources import PhotoSource, decode_source
from model.images.transform import fit
from model.types import Pixels

HEIGHT = 320
"""Of each photo in a picture, in pixels."""
WIDEST = 640
GAP = 8
DIMMED = 0.6
"""Brightness of a photo below its heat; its colours are taken away, so that they are not read as heat."""
COVER = 0.8
"""How much of a photo the greatest heat covers."""

INFERNO = np.array(
    [
        (0, 0, 4),
        (33, 12, 74),
        (87, 16, 110),
        (138, 34, 106),
        (188, 55, 84),
        (228, 90, 49),
        (249, 142, 9),
        (249, 203, 53),
        (252, 255, 164),
    ]
)
"""Colours of rising heat at even steps: matplotlib's "inferno", in which equal steps look equal."""


@dataclass(frozen=True, slots=True)
class Match:
    """A photo of the gallery, RGB pixels as `seen` gives them, and why it matches."""

    pixels: Pixels
    explanation: Explanation
    caption: str


def seen(photo: PhotoSource, spec: InputSpec, box: Box | None = None) -> Pixels:
    """What maps lie over: the whole photo, or its box, where the model takes it whole, else the part it is cut to."""
    pixels = decode_source(photo, HEIGHT, box)
    return pixels if spec.fit == "stretch" else fit(pixels, spec)


def draw_matches(query: Pixels, matches: Sequence[Match]) -> Image.Image:
    """A row for each match: the query and the gallery's photo side by side, both with their heat.

    The two maps of a row have one scale, from nothing to the greatest value of either; what counts against the match
    has no heat. The captions are in ASCII: no other letters are sure to be there.
    """
    rows = []
    for match in matches:
        maps = match.explanation.query, match.explanation.hit
        most = max(float(heat.max()) for heat in maps)
        pictures = [overlaid(pixels, heat, most) for pixels, heat in zip((query, match.pixels), maps, strict=True)]
        ImageDraw.Draw(pictures[1]).text(
            (GAP, GAP), match.caption, "white", ImageFont.load_default(18), stroke_width=2, stroke_fill="black"
        )
        rows.append(pictures)
    left, right = (max(row[side].width for row in rows) for side in (0, 1))
    page = Image.new("RGB", (left + right + 3 * GAP, len(rows) * (HEIGHT + GAP) + GAP), "white")
    for number, row in enumerate(rows):
        top = GAP + number * (HEIGHT + GAP)
        page.paste(row[0], (GAP, top))
        page.paste(row[1], (2 * GAP + left, top))
    return page


def overlaid(pixels: Pixels, heat: Heat, most: float) -> Image.Image:
    """A photo uint8 (H, W, 3), `HEIGHT` pixels high, with a map (h, w) over it whose full heat is `most`."""
    photo = Image.fromarray(pixels)
    size = max(1, min(WIDEST, round(HEIGHT * photo.width / photo.height))), HEIGHT
    grey = np.asarray(photo.resize(size, Image.Resampling.BILINEAR).convert("L"), np.float64)[..., None]
    smooth = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(smooth, np.float64) / (most if most > 0 else 1), 0, 1)
    cover = COVER * strength[..., None]
    return Image.fromarray(np.round((1 - cover) * DIMMED * grey + cover * _coloured(strength)).astype(np.uint8))


def _coloured(strength: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """0 to 1 (H, W) -> colours of INFERNO (H, W, 3), 0 to 255."""
    steps = np.linspace(0, 1, len(INFERNO))
    return np.stack([np.interp(strength, steps, INFERNO[:, channel]) for channel in range(3)], axis=-1)
