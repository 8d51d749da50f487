"""One photo's world: where the camera stands, what the road looks like and what light falls on it."""

from dataclasses import dataclass, replace

import numpy as np

from bench.rendered.camera import Camera, Floats, framing
from bench.rendered.light import Lighting, lighting
from bench.rendered.plan import Time
from bench.rendered.road import Road, layout

WIDTH, HEIGHT = 512, 384
SITES = 60
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
    azimuth = np.radians(heading + rng.uniform(-3, 3))
    away, height = rng.uniform(5.3, 7.0), rng.uniform(2.6, 3.8)
    eye = np.array((np.cos(azimuth) * away, np.sin(azimuth) * away, height), np.float32)
    camera = framing(
        eye,
        points,
        fill=float(rng.uniform(0.55, 0.68)),
        offset=(float(rng.normal(0, 0.03)), float(rng.normal(0.01, 0.03))),
        aspect=WIDTH / HEIGHT,
        roll=float(rng.normal(0, 0.018)),
    )
    return World(camera, lighting(rng, time, float(azimuth)), _place(rng), float(rng.uniform(0.5, 1.3)))


def _place(rng: np.random.Generator) -> Road:
    """One of the sites, the car standing there as it happens to stop."""
    site = layout(np.random.default_rng((SITES, int(rng.integers(SITES)))))
    along, across = site.shift
    shift = (along + float(rng.normal(0, 1.0)), across + float(rng.normal(0, 0.4)))
    return replace(site, shift=shift, turn=site.turn + float(rng.normal(0, 0.05)))
