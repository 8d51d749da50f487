"""Photos as pictures to show: decoded and encoded anew, so that what is shown is always a picture and nothing else."""

import io

from PIL import Image

from model.images.decode import decode, side_within
from model.images.header import read_header

LONGEST_SIDE = 1024


def shrunk(photo: bytes, width: int = LONGEST_SIDE, height: int = LONGEST_SIDE) -> Image.Image:
    """A photo, upright, at most so many pixels wide and high; raises ImageRejected."""
    header = read_header(photo)
    side = min(width, side_within(header, height)) if header else None  # of either side: it may be turned
    image = Image.fromarray(decode(photo, side))
    image.thumbnail((width, height))
    return image


def picture(photo: bytes, width: int = LONGEST_SIDE) -> bytes:
    """A JPEG of a photo, upright, at most so many pixels wide and LONGEST_SIDE high; raises ImageRejected."""
    buffer = io.BytesIO()
    shrunk(photo, width).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
