"""Noise textures: square tiles that repeat without a seam."""

from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from bench.rendered_cars.camera import Floats

TILE = 1024


@cache
def tile(number: int, fall: float, low: float = 0.0) -> Floats:
    """Noise (TILE, TILE) of mean 0 and deviation 1 whose amplitude falls with frequency to the power `fall`.

    Frequencies under `low` (of 1: the finest) are left out: gravel has grains but no hills.
    """
    rng = np.random.default_rng((20_26, number))
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :]) * 2
    frequency[0, 0] = 1
    gain = frequency**-fall * (frequency >= low)
    gain[0, 0] = 0
    made: Floats = np.fft.irfft2(spectrum * gain, s=(TILE, TILE)).astype(np.float32)
    made /= made.std()
    return made


def grain() -> Floats:
    """Stones in asphalt: mostly fine, a few that shine and a few holes."""
    fine = tile(1, 0.35, 0.1)
    bright: Floats = np.maximum(fine - np.float32(1.6), 0) ** 2
    return fine + np.float32(0.55) * bright


def at(texture: Floats, x: Floats, y: Floats, metres: float) -> Floats:
    """The texture's values at places (any shape) when one of its pixels is `metres` wide."""
    scale = np.float32(1 / metres)
    column = (x * scale).astype(np.int32) & (TILE - 1)
    row = (y * scale).astype(np.int32) & (TILE - 1)
    return np.take(texture.ravel(), row * TILE + column)


def blurred(values: Floats, pixels: float) -> Floats:
    """Values of 0..1, (h, w), blurred by a Gaussian of so many pixels; to 1/255."""
    image = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8), "L")
    return np.asarray(image.filter(ImageFilter.GaussianBlur(pixels)), np.float32) / 255
