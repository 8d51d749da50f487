"""The ground as a camera sees it: its colour, the light on it, and what stands behind it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from bench.rendered_cars import noise
from bench.rendered_cars.camera import Camera, Floats
from bench.rendered_cars.light import Lighting
from bench.rendered_cars.road import Paint, Road

NEAR_M = 0.4
COLOURS: dict[Paint, tuple[float, float, float]] = {
    "white": (0.62, 0.62, 0.60),
    "yellow": (0.66, 0.40, 0.06),
    "dark": (0.028, 0.028, 0.030),
    "iron": (0.10, 0.092, 0.085),
    "pale": (0.20, 0.195, 0.185),
}


@dataclass(frozen=True)
class Cast:
    """The car's shadow on the ground: of the first light, and of the sky."""

    light: Camera
    shadow: Floats  # (s, s) 0..1, of the first light
    above: Camera
    contact: Floats  # (s, s) 0..1, how much of the sky is hidden just over the ground

    def lit(self, points: Floats) -> Floats:
        """How much of the first light reaches points (..., 3)."""
        return 1 - _sampled(self.shadow, self.light, points)

    def open(self, points: Floats) -> Floats:
        """How much of the sky's light reaches points (..., 3) on the ground."""
        return 1 - _sampled(self.contact, self.above, points)


def _sampled(mask: Floats, camera: Camera, points: Floats) -> Floats:
    size = len(mask)
    x, y, _ = camera.project(points)
    column, row = (x * size).astype(np.int32), (y * size).astype(np.int32)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    return np.where(inside, mask[np.clip(row, 0, size - 1), np.clip(column, 0, size - 1)], 0).astype(np.float32)


def painted(road: Road, camera: Camera, width: int, height: int) -> dict[Paint, Floats]:
    """The share of each pixel (height, width) that each paint covers."""
    relative = np.column_stack((road.corners, np.zeros(len(road.corners), np.float32))) - camera.eye
    seen = relative @ np.stack((camera.right, camera.up, camera.forward), 1)
    # Twice the size, then halved: edges that are not stairs.
    scale = np.array((width / (camera.slope * camera.aspect), -height / camera.slope))
    flat = seen[:, :2] / np.maximum(seen[:, 2:], NEAR_M) * scale + (width, height)
    counts = [len(mark.outline) for mark in road.marks]
    starts = np.cumsum([0, *counts[:-1]])
    low, high = np.minimum.reduceat(flat, starts), np.maximum.reduceat(flat, starts)
    nearest, furthest = np.minimum.reduceat(seen[:, 2], starts), np.maximum.reduceat(seen[:, 2], starts)
    whole = nearest > NEAR_M
    inside = (high > 0).all(1) & (low < (2 * width, 2 * height)).all(1)
    images: dict[Paint, Image.Image] = {}
    for number in np.flatnonzero(np.where(whole, inside, furthest > NEAR_M)).tolist():
        part = slice(starts[number], starts[number] + counts[number])
        outline = flat[part] if whole[number] else _before(seen[part]) * scale + (width, height)
        paint = road.marks[number].paint
        if paint not in images:
            images[paint] = Image.new("L", (2 * width, 2 * height))
        ImageDraw.Draw(images[paint]).polygon(outline.clip(-9999, 9999).ravel().tolist(), fill=255)
    return {paint: np.asarray(image.reduce(2), np.float32) / 255 for paint, image in images.items()}


def _before(corners: Floats) -> Floats:
    """The part of a polygon (n, 3), in a camera's axes, that lies in front of it, as slopes (k, 2)."""
    kept = []
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        if a[2] > NEAR_M:
            kept.append(a)
        if (a[2] > NEAR_M) != (b[2] > NEAR_M):
            kept.append(a + (b - a) * (NEAR_M - a[2]) / (b[2] - a[2]))
    found = np.array(kept, np.float32)
    return found[:, :2] / found[:, 2:]


def albedo(road: Road, x: Floats, y: Floats, pixel_m: Floats, masks: dict[Paint, Floats]) -> Floats:
    """The colour (..., 3) of the ground at places (...) that are `pixel_m` wide in the picture."""
    along, across = road.local(x, y)
    fine = noise.grain()
    fineness = np.minimum(np.float32(1), np.float32(0.014) / np.maximum(pixel_m, np.float32(1e-3))) * np.float32(
        road.speckle
    )
    grain = noise.at(fine, along, across, 0.011) * fineness
    blotch = noise.at(noise.tile(2, 1.25), along, across, 0.02)
    # Wheels polish two tracks in a lane, oil drips between them.
    track = np.cos(across * np.float32(4 * np.pi / 3.3)) * np.float32(0.045)
    base = np.float32(road.asphalt) * (1 + grain * np.float32(0.16) + blotch * np.float32(0.075) + track)
    if "patch" in masks:
        base = base * (1 - np.float32(0.34) * masks["patch"])
    tint = np.array((1 + 0.035 * road.tint, 1.0, 1 - 0.045 * road.tint), np.float32)
    colour = np.maximum(base, np.float32(0.01))[..., None] * tint
    for paint in ("pale", "iron", "dark", "yellow", "white"):
        if paint not in masks:
            continue
        where = np.flatnonzero(masks[paint])
        rough = grain.ravel()[where]
        worn: Floats = np.full(len(where), 0.75, np.float32)
        if paint in ("white", "yellow"):
            fresh = np.float32(2.6 - 3.2 * road.wear)
            worn = np.clip(blotch.ravel()[where] * np.float32(0.6) + rough * np.float32(0.8) + fresh, 0.12, 1)
        cover = (masks[paint].ravel()[where] * worn)[:, None]
        shade = np.array(COLOURS[paint], np.float32) * (1 - np.float32(0.25 * road.wear))
        flat = colour.reshape(-1, 3)
        flat[where] += cover * (shade * (1 + rough * np.float32(0.05))[:, None] - flat[where])
    return _beside(road, colour, along, across, grain)


def _beside(road: Road, colour: Floats, along: Floats, across: Floats, grain: Floats) -> Floats:
    """Kerb and pavement where the road ends."""
    for side, sign in zip(road.sides, (1, -1), strict=True):
        beyond = across * sign - np.float32(side.kerb)
        where = np.flatnonzero(beyond.ravel() > -0.1)
        if not len(where):
            continue
        out, x, rough = beyond.ravel()[where], along.ravel()[where], grain.ravel()[where]
        tiles = ((x % 0.3 < 0.018) | (out % 0.3 < 0.018)) & (out > 0.2)
        tone = np.where(
            out < 0, 0.03, np.where(out < 0.18, 0.3, 0.14 + 0.35 * side.shade * (0.3 + 0.2 * np.sign(np.sin(x * 2.1))))
        )
        tone = tone * (1 + 0.06 * rough) * np.where(tiles, 0.6, 1)
        warm = np.array((1.05, 1.0, 0.93), np.float32)
        colour.reshape(-1, 3)[where] = tone[:, None].astype(np.float32) * warm
    return colour


def falling_light(points: Floats, lighting: Lighting, cast: Cast, shade: Floats | None, pools: Floats | None) -> Floats:
    """The light (h, w, 3) that falls on the ground at points (h, w, 3); `shade` (h, w) is of what is not seen."""
    flat = points.reshape(-1, 3)
    up = np.array((1, 0, 0, 1), np.float32)
    light = cast.open(flat)[:, None] * np.maximum(up @ lighting.ambient, 0)
    for number, source in enumerate(lighting.lights):
        toward = source.place - flat
        square = np.einsum("ij,ij->i", toward, toward)
        span = np.float32(np.dot(source.place, source.place))
        falling = toward[:, 2] / np.sqrt(square) * span / square
        if number == 0:
            falling = falling * cast.lit(flat)
            if shade is not None and not lighting.dark:
                falling = falling * (1 - np.float32(0.92) * noise.blurred(shade, 1.5).ravel())
        light = light + falling[:, None] * source.power
    if pools is not None:
        light = light + pools.reshape(-1, 3)
    return light.reshape(points.shape)


Mask = npt.NDArray[np.bool_]


def backdrop(road: Road, camera: Camera, rays: Floats, haze: Floats, dark: bool) -> tuple[Mask, Floats]:
    """The pixels (h, w) that show something behind the ground, and their colours (k, 3)."""
    down = np.minimum(rays[..., 2], np.float32(-1e-4))
    reach = -camera.eye[2] / down
    _, across = road.local(camera.eye[0] + reach * rays[..., 0], camera.eye[1] + reach * rays[..., 1])
    left, right = road.sides
    beyond = (across > left.kerb + left.behind) | (across < -right.kerb - right.behind) | (reach > 70)
    if not beyond.any():
        return beyond, np.zeros((0, 3), np.float32)
    chosen = rays[beyond]
    pixel_m = 2 * camera.slope / len(rays)  # at one metre
    origin_x, origin_y = road.local(camera.eye[0], camera.eye[1])
    cos, sin = np.cos(road.turn), np.sin(road.turn)
    go_x, go_y = cos * chosen[:, 0] + sin * chosen[:, 1], cos * chosen[:, 1] - sin * chosen[:, 0]
    colour = np.tile(haze * np.float32(0.8), (len(chosen), 1))
    for side, sign in zip(road.sides, (1, -1), strict=True):
        tall = 4 + 12 * side.shade
        low = tall if side.backdrop == "building" else side.height
        for further, kind, height in ((9.0, side.beyond, tall), (0.0, side.backdrop, low)):  # the near hides the far
            distance = sign * (side.kerb + side.behind + further) - origin_y
            away = distance / np.where(go_y * sign > 1e-4, go_y, np.float32(np.nan))
            x, z = origin_x + away * go_x, camera.eye[2] + away * chosen[:, 2]
            hit = (z > -0.1) & (z < height) & (away < 90)  # False where the ray never gets there
            x, z, size = np.where(hit, np.stack((x, z, away * pixel_m)), 0).astype(np.float32)
            tone, opaque = _facade(kind, x, z, size, height, side.shade)
            light = haze * np.float32(2.0 if dark else 1.2)
            colour += (hit * opaque)[:, None] * (tone * light - colour)
    return beyond, colour.astype(np.float32)


def _facade(kind: str, x: Floats, z: Floats, pixel_m: Floats, height: float, shade: float) -> tuple[Floats, Floats]:
    """The colour (n, 3) and the opacity of a wall, fence, hedge or house at places along and up it."""
    rough = noise.at(noise.tile(3, 0.9), x, z, 0.03)
    if kind == "hedge":
        leaf = noise.at(noise.tile(4, 0.8), x, z, 0.03)
        tone = np.maximum(0.07 + 0.035 * leaf, 0.012)[:, None] * np.array((0.85, 1.0, 0.5))
        return tone, (z + 0.08 * height * (rough + 1.5) < height) * 1.0
    if kind == "fence":
        rails = (np.abs(z - 1.15) < 0.03) | (z < 0.12) | (x % 2.4 < 0.09)
        # Bars narrower than a pixel would beat with the pixels: they are a veil instead.
        bars = np.where(pixel_m < 0.03, x % 0.14 < 0.03, 0.22)
        return np.full((len(x), 3), 0.04 + 0.3 * shade), np.where(rails, 1.0, bars) * (z < 1.2)
    joints = (z % 0.6 < 0.02) | ((x + 0.5 * (z // 0.6 % 2)) % 1.2 < 0.02) if kind == "wall" else z % 3 < 0.15
    tone = (0.10 + 0.8 * shade) * (1 + 0.10 * rough) * np.where(joints, 0.7, 1)
    colour = tone[:, None] * np.array((1.0, 0.96, 0.9))
    if kind == "building":
        pitch = 1.8 + 5 * shade
        pane = (z % 3 > 1.0) & (z % 3 < 2.3) & (x % pitch < 0.55 * pitch)
        colour = np.where(pane[:, None], np.array((0.03, 0.035, 0.045)), colour)
    return colour, np.ones(len(x))
