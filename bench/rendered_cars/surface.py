"""Shading of the car: paint under clear lacquer, glass, rubber, chrome and lamps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.rendered_cars.camera import Camera, Floats
from bench.rendered_cars.geometry import Body, reached
from bench.rendered_cars.light import Lighting, mirrored

HALF = np.float32(0.5)
SHADOW_SLACK_M = 0.025
GLINT = 60.0
"""The brightest that the image of a lamp or the sun in lacquer may be: beyond it a pixel is white anyway."""


@dataclass(frozen=True)
class Materials:
    """The materials of a body's parts as tables, in linear light; `m` parts."""

    albedo: Floats  # (m, 3)
    emissive: Floats  # (m, 3)
    scalars: Floats  # (m, 4) metallic, roughness, clearcoat, opacity
    textures: tuple[Floats | None, ...]  # (h, w, 3) each

    @classmethod
    def of(cls, body: Body) -> "Materials":
        """The materials of a body."""
        made = [part.material for part in body.parts]
        return cls(
            _linear(np.array([material.albedo for material in made], np.float32)),
            np.array([_glow(material.emissive) for material in made], np.float32),
            np.array([(m.metallic, m.roughness, m.clearcoat, m.opacity) for m in made], np.float32),
            tuple(None if m.texture is None else _linear(m.texture.astype(np.float32) / 255) for m in made),
        )


def _glow(emissive: tuple[float, float, float]) -> Floats:
    """A colour times a strength in linear light: only the colour is curved."""
    strength = max(*emissive, 1.0)
    return _linear(np.array(emissive, np.float32) / np.float32(strength)) * np.float32(strength)


def _linear(srgb: Floats) -> Floats:
    return (srgb ** np.float32(2.2)).astype(np.float32)


@dataclass(frozen=True)
class Skin:
    """The per-triangle values that shading looks up; `n` triangles."""

    planes: Floats  # (n, 12) see Body.planes
    corners: Floats  # (n, 3, 4) normal, and how much of the sky is seen
    coords: Floats  # (n, 3, 2) of textures
    part: npt.NDArray[np.int32]  # (n,)

    @classmethod
    def of(cls, body: Body, sky: Floats) -> "Skin":
        """A body's skin; `sky` (p,) is what its points see of the sky."""
        corners = np.column_stack((body.normals, sky)).astype(np.float32)
        return cls(body.planes(), corners[body.faces], body.coords[body.faces], body.part)


@dataclass(frozen=True)
class Hits:
    """Where rays meet a body; `n` rays."""

    triangle: npt.NDArray[np.int32]  # (n,)
    place: Floats  # (n, 3)
    weights: Floats  # (n, 3) of the triangle's corners
    distance: Floats  # (n,) along the camera's axis
    toward: Floats  # (n, 3) unit, to the camera


def hits(skin: Skin, triangle: npt.NDArray[np.int32], camera: Camera, rays: Floats) -> Hits:
    """Where rays (n, 3) meet the triangles (n,) that their pixels show."""
    rows = skin.planes[triangle]
    facing = np.einsum("ij,ij->i", rows[:, :3], rays)
    facing = np.where(np.abs(facing) < 1e-12, np.float32(1e-12), facing)
    distance = (rows[:, 3] - rows[:, :3] @ camera.eye) / facing
    place = camera.eye + distance[:, None] * rays
    second = np.clip(np.einsum("ij,ij->i", rows[:, 4:7], place) + rows[:, 7], 0, 1)
    third = np.clip(np.einsum("ij,ij->i", rows[:, 8:11], place) + rows[:, 11], 0, 1 - second)
    weights = np.stack((1 - second - third, second, third), 1)
    toward = -rays / np.sqrt(np.einsum("ij,ij->i", rays, rays))[:, None]
    return Hits(triangle, place, weights, distance, toward)


@dataclass(frozen=True)
class Surroundings:
    """What a surface reflects and what shadows it, the same for every pixel of a photo."""

    lighting: Lighting
    light: Camera  # the first light's view
    depth: Floats  # (s, s) seen from it
    floor: Floats  # (g, g, 3) light from the ground about the car, seen from above
    floor_even: Floats  # (g, g, 3) the same, blurred
    floor_m: float  # half its width


def shade(hit: Hits, skin: Skin, materials: Materials, around: Surroundings) -> tuple[Floats, Floats]:
    """The diffuse light (n, 3) of a surface, and (n, 3) what it mirrors."""
    part = skin.part[hit.triangle]
    between = np.einsum("ijk,ij->ik", skin.corners[hit.triangle], hit.weights)
    normal, sky = between[:, :3], between[:, 3]
    normal /= np.maximum(np.sqrt(np.einsum("ij,ij->i", normal, normal)), 1e-6)[:, None]
    facing = np.einsum("ij,ij->i", normal, hit.toward)
    normal *= np.where(facing < 0, np.float32(-1), np.float32(1))[:, None]  # skins are seen from both sides
    facing = np.maximum(np.abs(facing), np.float32(0.03))
    albedo = _albedo(hit, skin, materials, part)
    metallic, roughness, coat, _ = materials.scalars[part].T
    own = _even_light(hit.place, normal, sky, around)
    mirror = 2 * facing[:, None] * normal - hit.toward
    polished = np.maximum(coat, np.where(roughness < 0.2, np.float32(1), np.float32(0)))
    square = (1 - facing) * (1 - facing)
    grazing = square * square * (1 - facing)
    fresnel = np.float32(0.045) + np.float32(0.955) * grazing
    # A rough surface without lacquer mirrors little: what it does is part of its own colour already.
    reach = fresnel * np.maximum(polished, np.float32(0.25) * (1 - roughness))
    gloss = np.minimum(roughness, np.where(coat > 0.3, np.float32(0.06), np.float32(1)))
    image = reflected(hit.place, mirror, gloss, sky, around)
    shine = image * reach[:, None]
    metal = np.flatnonzero(metallic > 0.02)
    if len(metal):
        deep = reflected(hit.place[metal], mirror[metal], np.maximum(roughness[metal], 0.12), sky[metal], around)
        shine[metal] += deep * albedo[metal] * metallic[metal, None]
    lifted = np.float32(0.015)  # metres off the surface, or it would shade itself
    for number, source in enumerate(around.lighting.lights):
        ray = source.place - hit.place
        square = np.einsum("ij,ij->i", ray, ray)
        ray /= np.sqrt(square)[:, None]
        strength = np.float32(np.dot(source.place, source.place)) / square
        if number == 0:
            strength = strength * reached(hit.place + normal * lifted, around.light, around.depth, SHADOW_SLACK_M)
        head_on = np.maximum(np.einsum("ij,ij->i", normal, ray), 0)
        own += (head_on * strength)[:, None] * source.power
        aligned = np.maximum(np.einsum("ij,ij->i", mirror, ray), 0)
        arriving = (head_on > 0) * strength
        near = np.flatnonzero((aligned > 0.8) & (arriving > 0))  # elsewhere there is nothing of it to be seen
        glint = np.minimum(_glint(aligned[near], gloss[near]) * reach[near], GLINT) * arriving[near]
        shine[near] += glint[:, None] * source.power
        if len(metal):
            flakes = _glint(aligned[metal], np.maximum(roughness[metal], 0.22)) * metallic[metal] * arriving[metal]
            shine[metal] += (np.float32(0.6) * flakes)[:, None] * albedo[metal] * metallic[metal, None] * source.power
    return own * albedo * (1 - np.float32(0.85) * metallic)[:, None] + materials.emissive[part], shine


def _albedo(hit: Hits, skin: Skin, materials: Materials, part: npt.NDArray[np.int32]) -> Floats:
    albedo = materials.albedo[part]
    for number, texture in enumerate(materials.textures):
        if texture is None:
            continue
        where = np.flatnonzero(part == number)
        place = np.einsum("ijk,ij->ik", skin.coords[hit.triangle[where]], hit.weights[where])
        height, width = texture.shape[:2]
        column = np.clip((place[:, 0] * width).astype(np.int32), 0, width - 1)
        row = np.clip(((1 - place[:, 1]) * height).astype(np.int32), 0, height - 1)
        albedo[where] = texture[row, column]
    return albedo


def _even_light(place: Floats, normal: Floats, sky: Floats, around: Surroundings) -> Floats:
    """The light (n, 3) of the sky and from the ground on surfaces."""
    ambient = around.lighting.ambient
    above: Floats = np.maximum(ambient[0] + normal @ ambient[1:], 0) * (sky * (HALF + HALF * normal[:, 2]))[:, None]
    below = _floor_at(around.floor_even, place + normal * np.float32(0.7), around)
    return above + below * (HALF - HALF * normal[:, 2])[:, None] * np.float32(0.9)


def _floor_at(floor: Floats, place: Floats, around: Surroundings) -> Floats:
    size = len(floor)
    scale = np.float32(size / (2 * around.floor_m))
    # As `Camera.looking` sees it from straight above: y runs to the left, x up.
    column = np.clip(((around.floor_m - place[:, 1]) * scale).astype(np.int32), 0, size - 1)
    row = np.clip(((around.floor_m - place[:, 0]) * scale).astype(np.int32), 0, size - 1)
    return np.take(floor.reshape(-1, 3), row * size + column, 0)


def reflected(place: Floats, mirror: Floats, gloss: Floats, sky: Floats, around: Surroundings) -> Floats:
    """The light (n, 3) that comes from where unit vectors (n, 3) point: the sky, or the ground about the car."""
    levels = around.lighting.sky
    size = levels.shape[1]
    level = (gloss > 0.14).astype(np.int32) + (gloss > 0.42)
    x, y = mirrored(mirror)
    column, row = np.minimum((x * size).astype(np.int32), size - 1), np.minimum((y * size).astype(np.int32), size - 1)
    # Where a part hides the sky from another, the reflection is of that part: dark, as a rule.
    light: Floats = (
        np.take(levels.reshape(-1, 3), (level * size + row) * size + column, 0)
        * (np.minimum(HALF + sky, 1) * (HALF + np.minimum(sky, HALF)))[:, None]
    )
    under = np.flatnonzero(mirror[:, 2] < 0.01)
    if len(under):
        down = np.maximum(-mirror[under, 2], np.float32(0.012))
        reach = np.minimum(place[under, 2] / down, np.float32(30))
        spot = place[under] + mirror[under] * reach[:, None]
        light[under] = _floor_at(around.floor, spot, around)
    return light


def _glint(aligned: Floats, roughness: Floats) -> Floats:
    """The image of a small source in a surface: a lobe about the mirrored ray that is narrow where it is smooth."""
    wide = np.maximum(roughness, np.float32(0.11)) ** 2  # narrower than this, it would fall between the pixels
    power = np.float32(1.2) / (wide * wide) + 1
    lobe: Floats = np.exp(np.maximum((aligned - 1) * power, -60)) * np.minimum(power * np.float32(0.08), GLINT)
    return lobe
