"""One photo's world: where the camera stands, what the road looks like and what light falls on it."""

from dataclasses import dataclass

import numpy as np

from bench.rendered.camera import Camera, Floats, framing
from bench.rendered.light import Lighting, lighting
from bench.rendered.plan import Time
from bench.rendered.road import Road, layout

WIDTH, HEIGHT = 512, 384


@dataclass(frozen=True)
class World:
    """Everything about a photo but the car, which stands at the origin and looks along x."""

    camera: Camera
    lighting: Lighting
    road: Road
    beams: float  # how bright the car's own lamps are, 1 as a rule


def world(rng: np.random.Generator, heading: int, time: Time, points: Floats) -> World:
    """Draws a world by lot for a car of the outline `points` (n, 3); at heading 0 the car faces the camera."""
    azimuth = np.radians(heading + rng.uniform(-5, 5))
    away, height = rng.uniform(4.8, 7.8), rng.uniform(2.3, 4.5)
    eye = np.array((np.cos(azimuth) * away, np.sin(azimuth) * away, height), np.float32)
    camera = framing(
        eye,
        points,
        fill=float(rng.uniform(0.52, 0.70)),
        offset=(float(rng.normal(0, 0.035)), float(rng.normal(0.01, 0.035))),
        aspect=WIDTH / HEIGHT,
        roll=float(rng.normal(0, 0.022)),
    )
    return World(camera, lighting(rng, time, float(azimuth)), layout(rng), float(rng.uniform(0.5, 1.3)))
