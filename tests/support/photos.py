"""Synthetic photos and sets: nothing here comes from anybody's camera."""

import io
import math
import struct
import sys
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

from model.types import Pixels

KOREAN = "아반떼"  # NFC, as the seed's classes are named


def car_pixels(kind: int, shot: int, size: tuple[int, int] = (96, 72)) -> Pixels:
    """A picture of a kind of "car" (its colour bands) as one of many shots (light, place, noise): uint8 (H, W, 3)."""
    width, height = size
    look, moment = np.random.default_rng((1, kind)), np.random.default_rng((2, kind, shot))
    palette = look.integers(30, 226, (4, 3))
    bands = np.repeat(palette, -(-height // 4), axis=0)[:height, None, :].repeat(width, axis=1).astype(float)
    left = int(moment.integers(0, width // 4))
    bands[height // 3 : 2 * height // 3, left : left + width // 2] = look.integers(0, 256, 3)
    noise = moment.normal(0, 12, (height, width, 3))
    return (bands * moment.uniform(0.8, 1.2) + noise).clip(0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, **options: object) -> bytes:
    """Encodes a picture; `options` go to Pillow."""
    return encoded(Image.fromarray(pixels), "JPEG", **{"quality": 90, **options})


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    """Encodes an image in any of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def heic(image: Image.Image, **options: object) -> bytes:
    """Encodes an image as HEIC; `options` go to pillow-heif, and EXIF's orientation into the container."""
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, **options)
    return buffer.getvalue()


def flat_jpeg(width: int, height: int) -> bytes:
    """A grey JPEG of any size in four bytes for each 16 x 16 pixels: every block is the same, so nothing is encoded."""
    small = encoded(Image.new("RGB", (16, 16), (128, 128, 128)), "JPEG", subsampling="4:2:0")
    frame, scan = small.index(b"\xff\xc0"), small.index(b"\xff\xda")
    head = small[: frame + 5] + struct.pack(">HH", height, width) + small[frame + 9 : scan]
    blocks = b"\x28\xa2\x8a\x00" * (math.ceil(width / 16) * math.ceil(height / 16))
    return head + small[scan : scan + 14] + blocks + b"\xff\xd9"


def car_photo(kind: int = 0, shot: int = 0, size: tuple[int, int] = (96, 72)) -> bytes:
    """A JPEG of `car_pixels`."""
    return jpeg(car_pixels(kind, shot, size))


def write_gallery(root: Path, classes: int = 3, photos: int = 4, first_kind: int = 0) -> Path:
    """Class folders `<root>/<class>/<shot>.jpg`; class 0 has a Korean name."""
    for kind in range(first_kind, first_kind + classes):
        folder = root / (KOREAN if kind == 0 else f"car {kind}")
        folder.mkdir(parents=True)
        for shot in range(photos):
            (folder / f"{shot}.jpg").write_bytes(car_photo(kind, shot))
    return root


def write_seed_table(root: Path) -> Path:
    """The four photos of the seed's explanation: two dogs, two cats, nearest 1->2, 2->3, 3->4, 4->3; top-1 is 3/4.

    Each is a mixture of two pictures; the shares 0, 0.50, 0.74, 0.86 make the nearest neighbours those of the table.
    """
    dark, light = car_pixels(50, 0).astype(float), car_pixels(51, 0).astype(float)
    names = ("dog/Image1.png", "dog/Image2.png", "cat/Image3.png", "cat/Image4.png")
    for name, share in zip(names, (0.0, 0.50, 0.74, 0.86), strict=True):
        mixture = ((1 - share) * dark + share * light).astype(np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(Image.fromarray(mixture), "PNG"))
    return root


if __name__ == "__main__":
    # python -m tests.support.photos DIR: a made-up gallery for the README's first command
    write_gallery(Path(sys.argv[1]), classes=6, photos=8)
