"""One photo's world: where the camera stands, what the road looks like and what light falls on it."""

from dataclasses import dataclass, replace

import numpy as np

from bench.rendered_cars.camera import Camera, Floats, framing
from bench.rendered_cars.light import Lighting, lighting
from bench.rendered_cars.plan import Time
from bench.rendered_cars.road import Road, layout

WIDTH, HEIGHT = 512, 384
SITES = 12
"""Stretches of road where photos are taken, the same ones for every car and both splits."""


@dataclass(frozen=True)
class World:
    """Everything about a photo but the car, which stands at the origin and looks along x."""

    camera: Camera
    lighting: Lighting
    road: Road
    beams: float  # how bright the car's own lamps are, 1 as a rule


def world(rng: np.random.Generator, heading: int, time: Time, points: Floats) -> World:
    """Draws a world by lot for a car of the outline `points` (n, 3); at heading 0 the car faces the camera."""
    azimuth = np.radians(heading + rng.uniform(-2, 2))
    away, height = rng.uniform(5.6, 6.6), rng.uniform(2.8, 3.5)
    eye = np.array((np.cos(azimuth) * away, np.sin(azimuth) * away, height), np.float32)
    camera = framing(
        eye,
        points,
        fill=float(rng.uniform(0.62, 0.74)),
        offset=(float(rng.normal(0, 0.02)), float(rng.normal(0.01, 0.02))),
        aspect=WIDTH / HEIGHT,
        roll=float(rng.normal(0, 0.015)),
    )
    return World(camera, lighting(rng, time, float(azimuth)), _place(rng), float(rng.uniform(0.7, 1.2)))


def _place(rng: np.random.Generator) -> Road:
    """One of the sites, the car standing there as it happens to stop."""
    site = layout(np.random.default_rng((SITES, int(rng.integers(SITES)))))
    along, across = site.shift
    shift = (along + float(rng.normal(0, 0.5)), across + float(rng.normal(0, 0.25)))
    return replace(site, shift=shift, turn=site.turn + float(rng.normal(0, 0.05)))
