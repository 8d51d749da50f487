"""The part of a photo that is searched for: a rectangle in pixels of the upright photo, cut out before the resize."""

import math
import re
from typing import NamedTuple, Self

from model.errors import InvalidBox
from model.images.decode import MAX_ASPECT, MIN_SIDE, check_header, decode, orientation_of
from model.types import Pixels

TEXT = re.compile(r"(-?\d{1,9}),(-?\d{1,9}),(\d{1,9}),(\d{1,9})", re.ASCII)
ON_THE_SIDE = (5, 6, 7, 8)
"""EXIF orientations of which the upright photo is as wide as the file's picture is high."""


class Box(NamedTuple):
    """Left and top edge, width and height, in pixels of the upright photo."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads "x,y,width,height"; raises InvalidBox."""
        found = TEXT.fullmatch(text)
        if found is None:
            raise InvalidBox("A box is four whole numbers of pixels, x,y,width,height, as in box=40,60,320,240.")
        return cls(*map(int, found.groups()))

    def within(self, width: int, height: int) -> Self:
        """The part of it that lies in a photo of this size; raises InvalidBox where that is no photo to search for."""
        left, top = max(self.x, 0), max(self.y, 0)
        right, bottom = min(self.x + self.width, width), min(self.y + self.height, height)
        inside = type(self)(left, top, right - left, bottom - top)
        shorter, longer = sorted(inside[2:])
        if shorter < MIN_SIDE or longer > MAX_ASPECT * shorter:
            raise InvalidBox(
                f"The box needs at least {MIN_SIDE} pixels a side inside the photo, which has {width} x {height}, and "
                f"no side more than {MAX_ASPECT} times the other."
            )
        return inside

    def cut(self, pixels: Pixels) -> Pixels:
        """Its pixels of an upright photo uint8 (H, W, 3); raises InvalidBox."""
        inside = self.within(pixels.shape[1], pixels.shape[0])
        return pixels[inside.y : inside.y + inside.height, inside.x : inside.x + inside.width]


def decode_box(data: bytes, box: Box, side: int | None = None) -> Pixels:
    """Decodes a photo and cuts the box out: uint8 (H, W, 3).

    `side` is the length in pixels that the box's shorter side will be resized to; a JPEG with a much larger box is
    decoded reduced. Raises ImageRejected and InvalidBox.
    """
    size = _upright_size(data, side) if side is not None else None
    if side is None or size is None:
        return box.cut(decode(data))
    width, height = size
    inside = box.within(width, height)
    # As long as the photo's shorter side would become: the decoder then reduces by as much as the box allows.
    pixels = decode(data, math.ceil(side * min(width, height) / min(inside.width, inside.height)))
    across, down = pixels.shape[1] / width, pixels.shape[0] / height
    left, right = round(inside.x * across), round((inside.x + inside.width) * across)
    top, bottom = round(inside.y * down), round((inside.y + inside.height) * down)
    return pixels[top:bottom, left:right]


def _upright_size(data: bytes, side: int) -> tuple[int, int] | None:
    """Width and height of an upright JPEG before it is decoded; None for other photos and for a broken one."""
    header = check_header(data, side)
    if header.format != "JPEG":
        return None
    try:
        on_the_side = orientation_of(data, header) in ON_THE_SIDE
    except Exception:
        return None
    return (header.height, header.width) if on_the_side else (header.width, header.height)
