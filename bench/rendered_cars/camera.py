"""Pinhole cameras: the photo's, and the view from a light that finds shadows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
"""Single precision wherever it is per pixel; a camera or a light may well be double."""


@dataclass(frozen=True)
class Camera:
    """A pinhole at `eye` (metres) with the unit axes `right`, `up`, `forward`; `slope` is half the height at 1 m."""

    eye: Floats  # (3,)
    right: Floats  # (3,)
    up: Floats  # (3,)
    forward: Floats  # (3,)
    slope: float
    aspect: float

    @classmethod
    def looking(cls, eye: Floats, target: Floats, slope: float, aspect: float, roll: float = 0.0) -> "Camera":
        """A camera at `eye` that looks at `target`, turned about its axis by `roll` radians."""
        forward = _unit(target - eye)
        # A light straight overhead has no "up" of its own.
        helper = np.array((0, 0, 1) if abs(forward[2]) < 0.99 else (1, 0, 0), np.float32)
        right = _unit(np.cross(forward, helper))
        up = np.cross(right, forward)
        turned = (np.cos(roll) * right + np.sin(roll) * up, np.cos(roll) * up - np.sin(roll) * right)
        return cls(eye, turned[0].astype(np.float32), turned[1].astype(np.float32), forward, slope, aspect)

    def rays(self, width: int, height: int) -> Floats:
        """Directions through the centres of pixels, (height, width, 3), of length 1 along `forward`."""
        across = ((np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1) * np.float32(self.slope * self.aspect)
        down = (1 - (np.arange(height, dtype=np.float32) + 0.5) / height * 2) * np.float32(self.slope)
        return (across[None, :, None] * self.right + (down[:, None] * self.up + self.forward)[:, None, :]).astype(
            np.float32, copy=False
        )

    def project(self, points: Floats) -> tuple[Floats, Floats, Floats]:
        """Image coordinates of points (..., 3): x and y from 0 at the top left to 1, and the depth in metres."""
        axes = np.stack((self.right / (self.slope * self.aspect), -self.up / self.slope, self.forward), 1)
        seen = (points - self.eye) @ axes.astype(np.float32)
        depth = seen[..., 2]
        safe = np.maximum(depth, np.float32(1e-3))
        half = np.float32(0.5)
        return seen[..., 0] / safe * half + half, seen[..., 1] / safe * half + half, depth


def framing(
    eye: Floats, points: Floats, fill: float, offset: tuple[float, float], aspect: float, roll: float
) -> Camera:
    """A camera at `eye` whose focal length lets `points` (n, 3) fill a fraction of the frame, `offset` off its middle.

    `fill` is of the width or of the height, whichever is reached first; `offset` is a fraction of the frame.
    """
    target = points.mean(0)
    for _ in range(2):  # the middle of the picture of a body is not the picture of its middle
        camera = Camera.looking(eye, target, 1.0, aspect, roll)
        x, y, depth = camera.project(points)
        middle = ((x.min() + x.max()) / 2 - 0.5, (y.min() + y.max()) / 2 - 0.5)
        reach = 2 * depth.mean()
        target = target + camera.right * (middle[0] * reach * aspect) - camera.up * (middle[1] * reach)
    camera = Camera.looking(eye, target, 1.0, aspect, roll)
    x, y, depth = camera.project(points)
    slope = max(float(np.ptp(x)), float(np.ptp(y))) / fill
    reach = 2 * slope * float(depth.mean())
    target = target - camera.right * (offset[0] * reach * aspect) + camera.up * (offset[1] * reach)
    return Camera.looking(eye, target, slope, aspect, roll)


def _unit(vector: Floats) -> Floats:
    return (vector / np.linalg.norm(vector)).astype(np.float32)
