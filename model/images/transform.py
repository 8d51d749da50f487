"""RGB pixels to the crop that a network takes: the only resize and crop, for training, indexing and serving.

Resizing is Pillow's antialiased bilinear filter, whose sums are of whole numbers: the same bits on every processor.
"""

import dataclasses

import numpy as np
from PIL import Image

from model.card import InputSpec
from model.images.decode import decode
from model.types import Pixels


def prepare(data: bytes, spec: InputSpec) -> Pixels:
    """Decodes a photo and fits it: bytes -> uint8 (crop, crop, 3); raises ImageRejected."""
    return fit(decode(data, shorter_side(spec)), spec)


def shorter_side(spec: InputSpec) -> int:
    """The length in pixels that the shorter side of a photo is resized to."""
    return spec.crop if spec.fit == "stretch" else spec.resize


def fit(pixels: Pixels, spec: InputSpec) -> Pixels:
    """What the network sees of a photo, by the spec's `fit`: uint8 (H, W, 3) -> uint8 (crop, crop, 3)."""
    resized = resize(pixels, *fitted_size(pixels.shape[1], pixels.shape[0], spec))
    top, left = crop_corner(resized.shape[1], resized.shape[0], spec.crop)
    return np.ascontiguousarray(resized[top : top + spec.crop, left : left + spec.crop])


def canvas(pixels: Pixels, spec: InputSpec) -> Pixels:
    """What training cuts random crops from: uint8 (H, W, 3) -> uint8 with `resize` as its shorter side, or as both."""
    whole = dataclasses.replace(spec, crop=spec.resize)
    return resize(pixels, *fitted_size(pixels.shape[1], pixels.shape[0], whole))


def fitted_size(width: int, height: int, spec: InputSpec) -> tuple[int, int]:
    """The size, width and height in pixels, that a photo is resized to before its central crop is cut."""
    if spec.fit == "stretch":
        return spec.crop, spec.crop
    if width <= height:
        return spec.resize, int(spec.resize * height / width)
    return int(spec.resize * width / height), spec.resize


def crop_corner(width: int, height: int, crop: int) -> tuple[int, int]:
    """Top and left of the central crop; rounded as torchvision's CenterCrop does, so that recipes mean the same."""
    return round((height - crop) / 2), round((width - crop) / 2)


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Antialiased bilinear resize: uint8 (H, W, 3) -> uint8 (height, width, 3), always a copy."""
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
