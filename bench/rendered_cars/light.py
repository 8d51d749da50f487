"""The light of a time of day: sun or lamps, and the sky that the paint reflects."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from bench.rendered_cars.camera import Floats
from bench.rendered_cars.plan import Time

SKY_PIXELS = 96
SKY_DETAIL = 192
"""The sky is made coarse and looked up fine: the nearest pixel is then near enough."""
SUN_M = 150.0
BLURS = (0.6, 2.5, 8.0)
"""Standard deviations, in pixels of the sky, of what polished, satin and matt surfaces reflect."""


@dataclass(frozen=True)
class Light:
    """A small source at `place` (metres): `power` is what it gives at the origin to a surface that faces it."""

    place: Floats  # (3,)
    power: Floats  # (3,) linear RGB
    softness: float  # blur of its shadows, metres


@dataclass(frozen=True)
class Lighting:
    """The lights and the sky of a scene; the first light casts shadows."""

    lights: tuple[Light, ...]
    sky: Floats  # (levels, SKY_DETAIL, SKY_DETAIL, 3): what is mirrored, by roughness; see `mirrored`
    ambient: Floats  # (4, 3) irradiance = ambient[0] + normal @ ambient[1:]
    haze: Floats  # (3,) light of what is far away
    lamps_lit: bool
    dark: bool  # night


def mirrored(direction: Floats) -> tuple[Floats, Floats]:
    """Column and row, 0..1, of a direction (n, 3) in the picture of the sky: a paraboloid, so no trigonometry."""
    scale = np.float32(0.5) / (1 + np.abs(direction[:, 2]))
    return direction[:, 0] * scale + np.float32(0.5), direction[:, 1] * scale + np.float32(0.5)


@cache
def _dome() -> tuple[Floats, Floats]:
    """Directions (n, n, 3) of the sky's pixels and the solid angle (n, n) of each."""
    line = (np.arange(SKY_PIXELS, dtype=np.float32) + 0.5) / SKY_PIXELS * 2 - 1
    x, y = np.meshgrid(line, line)
    square = x * x + y * y
    inside = np.minimum(square, 1)
    direction = np.stack((2 * x, 2 * y, 1 - inside), -1) / (1 + inside)[..., None]
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    angle = np.where(square <= 1, 4 / (1 + inside) ** 2, 0) * (2 / SKY_PIXELS) ** 2
    return direction.astype(np.float32), angle.astype(np.float32)


_DAY = {  # height of the sun in degrees, its colour and power, zenith and horizon of the sky
    Time.MORNING: ((16, 25), (1.0, 0.80, 0.58), 2.5, (0.20, 0.33, 0.58), (0.80, 0.72, 0.62)),
    Time.NOON: ((57, 70), (1.0, 0.97, 0.91), 3.1, (0.22, 0.40, 0.75), (0.72, 0.78, 0.84)),
    Time.AFTERNOON: ((24, 35), (1.0, 0.87, 0.70), 2.8, (0.20, 0.36, 0.66), (0.84, 0.78, 0.68)),
}


def lighting(rng: np.random.Generator, time: Time, view: float) -> Lighting:
    """The light at a time of day, for a camera that stands at the azimuth `view` (radians) of the car."""
    return _night(rng, view) if time is Time.NIGHT else _day(rng, time, view)


def _day(rng: np.random.Generator, time: Time, view: float) -> Lighting:
    heights, colour, power, zenith, horizon = _DAY[time]
    # From the camera the sun stands on one side in the morning, behind the car at noon, on the other side later.
    side = {Time.MORNING: 1.2, Time.NOON: 2.6, Time.AFTERNOON: -1.2}[time]
    azimuth, height = view + side + rng.uniform(-0.4, 0.4), np.radians(rng.uniform(*heights))
    toward = np.array((np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)))
    shade = rng.random() < 0.06  # of a cloud or a building
    strength = power * (rng.uniform(0.02, 0.12) if shade else rng.uniform(0.85, 1.05))
    direction, _ = _dome()
    up = direction[..., 2:]
    haze = rng.uniform(0.85, 1.15)
    sky: Floats = np.array(zenith) * rng.uniform(0.9, 1.15) + (np.array(horizon) * haze - zenith) * (1 - up) ** 2.2
    clouds = _clouds(rng, direction) * rng.uniform(0.1, 0.5)
    sky = sky + (np.array((1.0, 0.98, 0.95)) * 1.15 - sky) * clouds
    near_sun = np.maximum(direction @ toward.astype(np.float32), 0)[..., None]
    sky = sky + np.array(colour) * strength * (0.25 * near_sun**24 + 0.06 * near_sun**4)
    sky = _skyline(rng, sky, direction, np.array((0.16, 0.15, 0.14)) * rng.uniform(0.5, 1.6), lit=0.0)
    sun = Light(
        (toward * SUN_M).astype(np.float32),
        (np.array(colour) * strength).astype(np.float32),
        float(rng.uniform(0.25, 0.6) if shade else rng.uniform(0.015, 0.05)),
    )
    return _gathered((sun,), sky, np.array(horizon) * 0.6, lamps_lit=False, dark=False)


def _night(rng: np.random.Generator, view: float) -> Lighting:
    """Street lamps in a row, one of them near, and often a floodlight beside the camera."""
    street = np.array(((1.0, 0.62, 0.30), (1.0, 0.86, 0.66), (0.86, 0.95, 1.0))[int(rng.choice(3, p=(0.2, 0.6, 0.2)))])
    azimuth, away = view + 2.4 + rng.uniform(-0.6, 0.6), rng.uniform(4, 8)
    place = np.array((np.cos(azimuth) * away, np.sin(azimuth) * away, rng.uniform(5.5, 9)))
    lamp = Light(
        place.astype(np.float32), (street * rng.uniform(0.25, 0.6)).astype(np.float32), float(rng.uniform(0.03, 0.1))
    )
    side = view + rng.uniform(-0.35, 0.35)
    reach = rng.uniform(6, 10)
    flood_at = np.array((np.cos(side) * reach, np.sin(side) * reach, rng.uniform(3, 6)))
    strength = rng.choice((0.0, 0.25, 0.8), p=(0.1, 0.2, 0.7)) * rng.uniform(0.8, 1.2)
    cold = np.array((0.92, 0.96, 1.0)) * strength
    flood = Light(flood_at.astype(np.float32), cold.astype(np.float32), float(rng.uniform(0.02, 0.05)))
    direction, _ = _dome()
    sky = np.array((0.008, 0.009, 0.013)) + np.array((0.03, 0.024, 0.018)) * (1 - direction[..., 2:]) ** 3
    sky = _skyline(rng, sky, direction, np.array((0.02, 0.018, 0.016)), lit=float(rng.uniform(0, 0.12)))
    row = rng.uniform(0, np.pi)
    along, across = np.array((np.cos(row), np.sin(row), 0)), np.array((-np.sin(row), np.cos(row), 0))
    spots = [place] + [
        along * s + across * w + (0, 0, 8) for s in np.arange(-70, 71, 24) + rng.uniform(0, 24) for w in (-6, 6)
    ]
    for spot in spots:
        near = direction @ (spot / np.linalg.norm(spot)).astype(np.float32)
        sky = sky + street * (np.exp((near - 1) * 4000) * 6.0 + np.exp((near - 1) * 200) * 0.05)[..., None]
    lights = (flood, lamp) if strength > 0.5 else (lamp, flood)
    return _gathered(lights, sky, np.array((0.02, 0.018, 0.017)), lamps_lit=True, dark=True)


def _gathered(lights: tuple[Light, ...], sky: Floats, haze: Floats, *, lamps_lit: bool, dark: bool) -> Lighting:
    """The lighting of lights and a sky, with the blurred skies and the ambient light."""
    direction, angle = _dome()
    weight = angle[..., None] * sky
    mean, tilt = weight.sum((0, 1)) / (2 * np.pi), np.einsum("ijk,ijc->kc", direction, weight) / (2 * np.pi)
    # First-order spherical harmonics of a half sphere: the light from above, less of it on surfaces that look down.
    ambient = np.vstack((mean * 0.55, tilt * 0.95))
    levels = [_blurred(sky, blur) for blur in BLURS]
    return Lighting(
        lights,
        np.stack(levels).astype(np.float32),
        ambient.astype(np.float32),
        haze.astype(np.float32),
        lamps_lit,
        dark,
    )


def _blurred(sky: Floats, deviation: float) -> Floats:
    channels = [Image.fromarray(np.ascontiguousarray(sky[..., c], np.float32), "F") for c in range(3)]
    # Pillow blurs no floats, but it scales them: down and up again is a blur, and cheaper.
    small = max(6, min(SKY_PIXELS, round(SKY_PIXELS / (1.6 * deviation))))
    scaled = [
        c.resize((small, small), Image.Resampling.BOX).resize((SKY_DETAIL,) * 2, Image.Resampling.BICUBIC)
        for c in channels
    ]
    smooth: Floats = np.maximum(np.stack([np.asarray(c) for c in scaled], -1), 0)  # cubic curves overshoot
    return smooth


def _clouds(rng: np.random.Generator, direction: Floats) -> Floats:
    """The share of each direction that clouds hide, (n, n, 1)."""
    coarse = [rng.random((size, size)).astype(np.float32) for size in (4, 8, 16)]
    sized = [np.asarray(Image.fromarray(c, "F").resize((SKY_PIXELS,) * 2, Image.Resampling.BICUBIC)) for c in coarse]
    cover = sized[0] + 0.5 * sized[1] + 0.25 * sized[2]
    hidden: Floats = np.clip((cover / 1.75 - rng.uniform(0.4, 0.7)) * 5, 0, 1)[..., None]
    return hidden * np.minimum(direction[..., 2:] * 3, 1)


def _skyline(rng: np.random.Generator, sky: Floats, direction: Floats, colour: Floats, lit: float) -> Floats:
    """The sky with houses and trees along its edge, some windows lit."""
    azimuth = ((np.arctan2(direction[..., 1], direction[..., 0]) / (2 * np.pi) + 0.5) * 48).astype(np.int32) % 48
    heights = np.repeat(rng.gamma(2.0, 0.12, 24), 2) * (0.8 + 0.4 * rng.random(48))
    tones = colour * rng.uniform(0.5, 1.7, (48, 1)) * rng.uniform(0.9, 1.1, (48, 3))
    hidden = (direction[..., 2] < np.minimum(heights, 0.62)[azimuth])[..., None]
    windows = (rng.random(sky.shape[:2]) < lit)[..., None] * np.array((0.9, 0.7, 0.4))
    seen: Floats = np.where(hidden, tones[azimuth] + windows, sky)
    return seen
