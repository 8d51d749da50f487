"""The kinds of photos that Python code may hold: a path, encoded bytes, a Pillow image, or an array of pixels."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from model.dataset import read_file
from model.errors import FileUnreadable, ImageUndecodable, UnsupportedImageFormat
from model.images.box import Box, decode_box
from model.images.decode import check_size, decode, upright_rgb
from model.types import Pixels

PhotoSource = bytes | str | os.PathLike[str] | Image.Image | Pixels
"""Encoded bytes, the path of a photo, a Pillow image, or RGB pixels uint8 (H, W, 3)."""


def read_source(photo: PhotoSource) -> bytes | Pixels:
    """Reads a photo: encoded bytes where they are given or a path names them, else RGB pixels uint8 (H, W, 3).

    An image of Pillow's is treated as a decoded file: its EXIF orientation is applied, transparency becomes white.
    Raises FileUnreadable for a path, ImageRejected for an image or pixels that cannot be used.
    """
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, Image.Image):
        check_size(*photo.size)
        try:
            photo.load()
            return upright_rgb(photo)
        except Exception as problem:  # as in `decode`: Pillow raises whatever its parsers run into
            raise ImageUndecodable("The image is damaged, cut off or closed and cannot be read.") from problem
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise UnsupportedImageFormat(f"Pixels must be uint8 (H, W, 3), not {photo.dtype} {photo.shape}.")
        check_size(photo.shape[1], photo.shape[0])
        return photo
    return read_photo(photo)


def decode_source(photo: PhotoSource, side: int, box: Box | None = None) -> Pixels:
    """RGB pixels uint8 (H, W, 3) of a photo, or of its box, whose shorter side will be resized to `side`.

    A much larger JPEG is decoded reduced. Raises as `read_source` does, and InvalidBox.
    """
    source = read_source(photo)
    if isinstance(source, bytes):
        return decode(source, side) if box is None else decode_box(source, box, side)
    return source if box is None else box.cut(source)


def read_photo(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a photo's file; raises FileUnreadable in one sentence with the path."""
    try:
        return read_file(Path(path))
    except FileUnreadable as problem:
        raise FileUnreadable(f"{Path(path)}: {problem}") from problem
