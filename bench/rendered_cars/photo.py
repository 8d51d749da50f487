"""From light to a JPEG: the lens, the sensor and the firmware of a compact camera."""

import io
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from bench.rendered_cars import noise
from bench.rendered_cars.camera import Floats

MIN_BYTES, MAX_BYTES = 25_000, 40_000
BLOOM_STEP = 4
CURVE_STEPS = 2048
LUMA = np.array((0.2126, 0.7152, 0.0722), np.float32)


def develop(light: Floats, rng: np.random.Generator, dark: bool) -> Image.Image:
    """The picture of light (h, w, 3). The exposure is metered, so a white car darkens the road."""
    sample = light[::3, ::3]
    seen = np.maximum(sample @ LUMA, 1e-5)
    middle = float(np.exp(np.log(seen).mean())) ** 0.6 * float(np.minimum(seen, 20 * np.median(seen)).mean()) ** 0.4
    key = (0.036 if dark else 0.16) * float(np.exp(rng.normal(0, 0.15)))
    warmth = float(rng.normal(0, 0.03 if dark else 0.02))
    grey = (seen.mean() / np.maximum(sample.mean((0, 1)), 1e-6)) ** 0.4  # white balance goes some way to grey
    balance = (np.array((1 + warmth, 1 + rng.normal(0, 0.012), 1 - warmth)) * grey).astype(np.float32)
    exposed = light * (balance * np.float32(key / max(middle, 1e-4)))
    exposed = exposed + _bloom(exposed, float(rng.uniform(0.6, 1.3) if dark else rng.uniform(0.25, 0.6)))
    exposed *= _vignette(light.shape[1], light.shape[0], round(float(rng.uniform(0.05, 0.34)), 2))[..., None]
    curve = _curve(float(rng.uniform(0.05, 0.35)))
    shown = np.take(curve, np.minimum(np.sqrt(exposed) * np.float32(CURVE_STEPS), len(curve) - 1).astype(np.int32))
    grey = (shown @ LUMA)[..., None]
    shown = grey + (shown - grey) * np.float32(rng.uniform(0.72, 1.02))
    picture = Image.fromarray((np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8), "RGB")
    return _sensed(_softened(picture, rng), rng, dark)


def _curve(contrast: float) -> Floats:
    """The tone curve, 0..1, by the square root of the light in steps of 1 / CURVE_STEPS up to 3."""
    light = (np.arange(3 * CURVE_STEPS) / CURVE_STEPS) ** 2
    shown = (1 - np.exp(-1.2 * light)) ** (1 / 2.2)
    return (shown + contrast * (shown * shown * (3 - 2 * shown) - shown)).astype(np.float32)


def _bloom(exposed: Floats, strength: float) -> Floats:
    """The glow of bright lamps in the lens, (h, w, 3)."""
    height, width = exposed.shape[:2]
    step = BLOOM_STEP
    bright = np.clip(exposed - np.float32(1.0), 0, 24)
    small = bright.reshape(height // step, step, width // step, step, 3).mean((1, 3))
    if small.max() < 1e-3:
        return np.zeros_like(exposed)
    padded = np.pad(small, ((0, 32), (0, 32), (0, 0)))
    seen = np.fft.rfft2(padded, axes=(0, 1)) * _spread(padded.shape[0], padded.shape[1])[..., None]
    spilt = np.fft.irfft2(seen, s=padded.shape[:2], axes=(0, 1))[: small.shape[0], : small.shape[1]]
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(spilt[..., c], np.float32), "F").resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for c in range(3)
    ]
    glow: Floats = np.maximum(np.stack(channels, -1), 0)  # a spectrum and back leaves less than nothing here and there
    return glow * np.float32(strength)


@cache
def _spread(height: int, width: int) -> Floats:
    """The spectrum of a glow: a narrow core and two wide skirts."""
    square = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None, :] ** 2
    widths = ((1.0, 0.30), (3.5, 0.16), (11.0, 0.10))
    return np.asarray(sum(share * np.exp(-2 * (np.pi * w) ** 2 * square) for w, share in widths), np.float32)


@cache
def _vignette(width: int, height: int, strength: float) -> Floats:
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(height / width)
    square = (x * x + y * y) / np.float32(1 + (height / width) ** 2)
    return (1 - np.float32(strength) * square * (np.float32(0.6) + np.float32(0.4) * square)).astype(np.float32)


def _softened(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Defocus, and sometimes motion blur."""
    radius = float(rng.uniform(0.25, 0.75) if rng.random() < 0.85 else rng.uniform(0.8, 1.3))
    picture = picture.filter(ImageFilter.GaussianBlur(radius))
    if rng.random() < 0.12:
        kernel = [0.0] * 25
        slope = int(rng.integers(-1, 2))
        for step in (-1, 0, 1):
            kernel[(2 + step * slope) * 5 + 2 + step] = 1.0
        picture = picture.filter(ImageFilter.Kernel((5, 5), kernel))
    return picture


def _sensed(picture: Image.Image, rng: np.random.Generator, dark: bool) -> Image.Image:
    """Sensor noise, denoised and sharpened."""
    values = np.asarray(picture, np.float32)
    height, width = values.shape[:2]
    strength = float(rng.uniform(2.5, 6.5) if dark else rng.uniform(1.0, 2.6))
    chroma = strength * float(rng.uniform(0.15, 0.5))
    grey = _patch(5, 0.12, rng, height, width)[..., None] * np.float32(strength)
    tinted = np.stack([_patch(6 + c, 0.55, rng, height, width) for c in range(3)], -1) * np.float32(chroma)
    # Noise of photons shows in the mid tones; the curve lifts it out of the shadows.
    by_tone = (0.65 + 0.6 * np.sin(np.arange(256) * (np.pi / 255))).astype(np.float32)
    level = np.take(by_tone, np.asarray(picture))
    noisy = np.clip(values + (grey + tinted) * level, 0, 255).astype(np.uint8)
    edge = -float(rng.uniform(0.02, 0.11))
    kernel = [edge / 2, edge, edge / 2, edge, 1 - 6 * edge, edge, edge / 2, edge, edge / 2]
    return Image.fromarray(noisy, "RGB").filter(ImageFilter.Kernel((3, 3), kernel))


def _patch(number: int, fall: float, rng: np.random.Generator, height: int, width: int) -> Floats:
    """A random piece of a noise tile: far cheaper than new noise."""
    top, left = (int(rng.integers(noise.TILE - size)) for size in (height, width))
    turned = noise.tile(number, fall)[top : top + height, left : left + width]
    return turned if rng.random() < 0.5 else turned[::-1, ::-1]


def jpeg(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """The picture as a JPEG of `MIN_BYTES` to `MAX_BYTES`, as far as a sensible quality allows."""
    quality = int(rng.integers(84, 94))
    data = _encoded(picture, quality)
    for _ in range(6):
        if len(data) > MAX_BYTES and quality > 60:
            quality -= 5
        elif len(data) < MIN_BYTES and quality < 97:
            quality += 2
        else:
            break
        data = _encoded(picture, quality)
    return data


def _encoded(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()
