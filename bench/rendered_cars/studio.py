"""Photos of one car: a random scene, the ground, and the car's triangles, in one light."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bench.rendered_cars import noise
from bench.rendered_cars.camera import Camera, Floats, framing
from bench.rendered_cars.geometry import Body, body_of, open_sky
from bench.rendered_cars.ground import Cast, albedo, backdrop, falling_light, painted
from bench.rendered_cars.light import Light, Lighting, lighting
from bench.rendered_cars.photo import develop, jpeg
from bench.rendered_cars.plan import Time
from bench.rendered_cars.raster import Raster
from bench.rendered_cars.road import Road, layout
from bench.rendered_cars.surface import Materials, Skin, Surroundings, hits, shade

if TYPE_CHECKING:
    from bench.rendered_cars.materials import Part

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
    """A random world for a car of the outline `points` (n, 3); at heading 0 the car faces the camera."""
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
    """One of the sites, with the car at a random place on it."""
    site = layout(np.random.default_rng((SITES, int(rng.integers(SITES)))))
    along, across = site.shift
    shift = (along + float(rng.normal(0, 0.5)), across + float(rng.normal(0, 0.25)))
    return replace(site, shift=shift, turn=site.turn + float(rng.normal(0, 0.05)))


FINE = (WIDTH * 3 // 2, HEIGHT * 3 // 2)
"""The car is drawn one and a half times as large, and then averaged."""
SHADOW_PIXELS = 384
ABOVE_M, ABOVE_SLOPE = 60.0, 4.0 / 60
FLOOR_PIXELS, FLOOR_M = 128, 11.0
BRIGHTEST = 40.0


@dataclass(frozen=True)
class Prepared:
    """A car with all that its photos share."""

    body: Body
    sky: Floats  # (p,) see open_sky
    skin: Skin
    materials: Materials
    outline: Floats  # (k, 3) some of its corners
    contact: Floats  # (s, s) how much of the sky it hides from the ground, from above
    heads: Floats  # (k, 3) places of lit lamps
    tails: Floats


def overhead() -> Camera:
    """A camera straight above, so high that perspective hardly matters."""
    return Camera.looking(np.array((0, 0, ABOVE_M), np.float32), np.zeros(3, np.float32), ABOVE_SLOPE, 1.0)


class Studio:
    """Renders photos of one car at a time in an off-screen picture."""

    def __init__(self) -> None:
        self._raster = Raster(*FINE)
        self._car: Prepared | None = None

    def enter(self, parts: "Sequence[Part]") -> None:
        """Sets the car of the next photos."""
        body = body_of(parts)
        self._raster.load(body.points, body.faces, body.glass)
        before = self._car
        if before is not None and np.array_equal(before.body.points, body.points):
            sky = before.sky  # the same car with other lamps
        else:
            sky = open_sky(body, self._raster)
        hidden = np.isfinite(self._raster.depth(overhead(), 256)).astype(np.float32)
        near, wide = noise.blurred(hidden, 5), noise.blurred(hidden, 20)
        self._car = Prepared(
            body,
            sky,
            Skin.of(body, sky),
            Materials.of(body),
            body.points[:: max(1, len(body.points) // 1500)],
            1 - (1 - np.float32(0.9) * near**1.5) * (1 - np.float32(0.55) * wide),
            _lamps(body, "head_"),
            _lamps(body, "tail_"),
        )

    def _entered(self) -> Prepared:
        if self._car is None:
            raise RuntimeError("no car has entered the studio")
        return self._car

    def photo(self, heading: int, time: Time, entropy: Sequence[int]) -> bytes:
        """A JPEG of the car; all its random numbers derive from `entropy`."""
        rng = np.random.default_rng(entropy)
        scene = world(rng, heading, time, self._entered().outline)
        cast, depth = self._cast(scene.lighting.lights[0])
        ground = self._ground(scene, cast)
        floor = self._floor(scene, cast)
        even = floor.reshape(FLOOR_PIXELS // 8, 8, FLOOR_PIXELS // 8, 8, 3).mean((1, 3))
        around = Surroundings(scene.lighting, cast.light, depth, floor, even, FLOOR_M)
        colour, cover = self._bodywork(scene, around)
        light = ground * (1 - cover[..., None]) + colour
        return jpeg(develop(light, rng, scene.lighting.dark), rng)

    def _cast(self, light: Light) -> tuple[Cast, Floats]:
        """The shadows of the car in a light, and the depths that the light sees."""
        target = np.array((0, 0, 0.6), np.float32)
        away = float(np.linalg.norm(light.place - target))
        view = Camera.looking(light.place, target, 3.1 / away, 1.0)
        depth = self._raster.depth(view, SHADOW_PIXELS)
        shadow = noise.blurred(np.isfinite(depth).astype(np.float32), light.softness * SHADOW_PIXELS / 6.2)
        return Cast(view, shadow, overhead(), self._entered().contact), depth

    def _ground(self, scene: World, cast: Cast) -> Floats:
        """The light (HEIGHT, WIDTH, 3) of the scene without the car."""
        camera, road, lighting = scene.camera, scene.road, scene.lighting
        rays = camera.rays(WIDTH, HEIGHT)
        reach = camera.eye[2] / np.maximum(-rays[..., 2], np.float32(0.02))
        x, y = camera.eye[0] + reach * rays[..., 0], camera.eye[1] + reach * rays[..., 1]
        pixel = reach * np.float32(2 * camera.slope / HEIGHT) * np.float32(1.4)
        masks = painted(road, camera, WIDTH, HEIGHT)
        light = albedo(road, x, y, pixel, masks)
        # What falls on the ground changes slowly but at the edges of shadows, and these are soft: every other pixel.
        points = _on_ground(camera, camera.rays(WIDTH // 2, HEIGHT // 2))
        shade = np.ascontiguousarray(masks["shade"][::2, ::2]) if "shade" in masks else None
        falling = falling_light(points, lighting, cast, shade, self._pools(scene, points))
        for channel in range(3):
            image = Image.fromarray(np.ascontiguousarray(falling[..., channel], np.float32), "F")
            light[..., channel] *= np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
        where, behind = backdrop(road, camera, rays, lighting.haze, lighting.dark)
        light[where] = behind
        return light

    def _floor(self, scene: World, cast: Cast) -> Floats:
        """The light (FLOOR_PIXELS, FLOOR_PIXELS, 3) from the ground about the car, for what mirrors it."""
        above = Camera.looking(np.array((0, 0, ABOVE_M), np.float32), np.zeros(3, np.float32), FLOOR_M / ABOVE_M, 1.0)
        points = _on_ground(above, above.rays(FLOOR_PIXELS, FLOOR_PIXELS))
        masks = painted(scene.road, above, FLOOR_PIXELS, FLOOR_PIXELS)
        width = np.full(points.shape[:2], 2 * FLOOR_M / FLOOR_PIXELS, np.float32)
        colour = albedo(scene.road, points[..., 0], points[..., 1], width, masks)
        return colour * falling_light(points, scene.lighting, cast, masks.get("shade"), self._pools(scene, points))

    def _pools(self, scene: World, points: Floats) -> Floats | None:
        """The light (..., 3) of the car's own lamps on the ground."""
        if not scene.lighting.lamps_lit:
            return None
        flat = points.reshape(-1, 3)
        light = np.zeros_like(flat)
        for places, forward, colour, power, spread in (
            (self._entered().heads, 1.0, (1.0, 0.93, 0.80), 14.0, 0.16),
            (self._entered().tails, -1.0, (1.0, 0.05, 0.04), 0.55, 0.7),
        ):
            for place in places:
                ray = flat - place
                square = np.einsum("ij,ij->i", ray, ray) + np.float32(0.05)
                ahead = forward * ray[:, 0] / np.sqrt(square)
                beam = np.exp((np.clip(ahead, -1, 1) - 1) / np.float32(spread)) * np.clip(ahead * 2, 0, 1)
                strength = beam * place[2] / np.sqrt(square) / square * np.float32(power * scene.beams)
                light += strength[:, None] * np.array(colour, np.float32)
        return light.reshape(points.shape)

    def _bodywork(self, scene: World, around: Surroundings) -> tuple[Floats, Floats]:
        """The light of the car (HEIGHT, WIDTH, 3) and the share of each pixel that it covers."""
        car, camera = self._entered(), scene.camera
        materials = car.materials
        solid, panes = self._raster.ids(camera, False), self._raster.ids(camera, True)
        rows, columns = _extent((solid >= 0) | (panes >= 0))
        solid, panes = solid[rows, columns], panes[rows, columns]
        rays = camera.rays(*FINE)[rows, columns]
        colour, cover = np.zeros((*solid.shape, 3), np.float32), np.zeros(solid.shape, np.float32)
        distance = np.full(solid.shape, np.inf, np.float32)
        there = solid >= 0
        hit = hits(car.skin, solid[there], camera, rays[there])
        own, shine = shade(hit, car.skin, materials, around)
        colour[there], cover[there], distance[there] = own + shine, 1, hit.distance
        there = panes >= 0
        if there.any():
            hit = hits(car.skin, panes[there], camera, rays[there])
            own, shine = shade(hit, car.skin, materials, around)
            opacity = materials.scalars[car.skin.part[hit.triangle], 3]
            before = hit.distance < distance[there]
            through = colour[there] * (1 - opacity)[:, None] + own * opacity[:, None] + shine
            colour[there] = np.where(before[:, None], through, colour[there])
            cover[there] = np.where(before, np.maximum(cover[there], opacity), cover[there])
        np.minimum(colour, BRIGHTEST, out=colour)
        whole = np.zeros((HEIGHT, WIDTH, 4), np.float32)
        place = (slice(rows.start * 2 // 3, rows.stop * 2 // 3), slice(columns.start * 2 // 3, columns.stop * 2 // 3))
        whole[place] = _reduced(np.dstack((colour, cover)))
        return whole[..., :3], whole[..., 3]


def _on_ground(camera: Camera, rays: Floats) -> Floats:
    """Where rays (h, w, 3) meet the ground, (h, w, 3): far away for those that do not."""
    points: Floats = camera.eye + (camera.eye[2] / np.maximum(-rays[..., 2:], np.float32(0.02))) * rays
    points[..., 2] = 0
    return points


def _extent(there: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]") -> tuple[slice, slice]:
    """The rows and columns of what is there, rounded to blocks of three."""
    found = []
    for axis in (1, 0):
        line = np.flatnonzero(there.any(axis))
        first, last = (int(line[0]), int(line[-1])) if len(line) else (0, 2)
        found.append(slice(first // 3 * 3, last // 3 * 3 + 3))
    return found[0], found[1]


def _reduced(fine: Floats) -> Floats:
    """A picture at two thirds of its size: each pixel the mean of the one and a half by one and a half under it."""
    for axis in (0, 1):
        shape = (*fine.shape[:axis], fine.shape[axis] // 3, 3, *fine.shape[axis + 1 :])
        first, middle, last = np.moveaxis(fine.reshape(shape), axis + 1, 0)
        pair = np.stack((2 * first + middle, middle + 2 * last), axis + 1) / np.float32(3)
        fine = pair.reshape(*fine.shape[:axis], fine.shape[axis] // 3 * 2, *fine.shape[axis + 1 :])
    return fine


def _lamps(body: Body, end: str) -> Floats:
    """The middles (k, 3) of a body's lit lamps at an end, those of each side as one."""
    lit = [n for n, part in enumerate(body.parts) if part.role.startswith(end) and max(part.material.emissive) > 1]
    corners = body.points[body.faces[np.isin(body.part, lit)].ravel()]
    sides = [corners[corners[:, 1] * sign > 0] for sign in (1, -1)]
    return np.array([side.mean(0) for side in sides if len(side)], np.float32).reshape(-1, 3)
