"""Plane shapes as signed distances, positive inside."""

from collections.abc import Callable, Sequence

import numpy as np

from bench.rendered_cars.soup import Floats

Shape = Callable[[Floats, Floats], Floats]
Corner = tuple[float, float]


def polygon(corners: Sequence[Corner], rounding: float = 0.0) -> Shape:
    """A polygon, its corners rounded."""
    middle = np.mean(np.asarray(corners, dtype=float), axis=0)
    ring = np.asarray(corners, dtype=float)
    if rounding:  # shrink towards the middle, then grow: what grows is round
        gap = ring - middle
        ring = middle + gap * (1 - rounding / np.maximum(np.abs(gap), rounding + 1e-3))
    following = np.roll(ring, -1, axis=0)

    def distance(a: Floats, b: Floats) -> Floats:
        """Distance to the border, by which side of it a point lies."""
        nearest = np.full(np.shape(a), np.inf)
        odd = np.zeros(np.shape(a), dtype=bool)
        for (x0, y0), (x1, y1) in zip(ring, following, strict=True):
            nearest = np.minimum(nearest, _to_segment(a, b, x0, y0, x1, y1))
            if y0 != y1:
                odd ^= ((y0 > b) != (y1 > b)) & (a < (x1 - x0) * (b - y0) / (y1 - y0) + x0)
        return np.where(odd, nearest, -nearest) + rounding

    return distance


def box(left: float, right: float, low: float, high: float, rounding: float = 0.0) -> Shape:
    """A rectangle with rounded corners."""
    ca, cb = (left + right) / 2, (low + high) / 2
    ha, hb = (right - left) / 2 - rounding, (high - low) / 2 - rounding

    def distance(a: Floats, b: Floats) -> Floats:
        """Distance to the border."""
        da, db = np.abs(a - ca) - ha, np.abs(b - cb) - hb
        outside = np.hypot(np.maximum(da, 0), np.maximum(db, 0))
        return np.asarray(rounding - outside - np.minimum(np.maximum(da, db), 0))

    return distance


def ellipse(ca: float, cb: float, ra: float, rb: float) -> Shape:
    """An ellipse; its distance is exact on the border only."""

    def distance(a: Floats, b: Floats) -> Floats:
        """Distance to the border, in the measure of the shorter axis."""
        return np.asarray((1 - np.hypot((a - ca) / ra, (b - cb) / rb)) * min(ra, rb))

    return distance


def _to_segment(a: Floats, b: Floats, x0: float, y0: float, x1: float, y1: float) -> Floats:
    """Distance to a segment."""
    dx, dy = x1 - x0, y1 - y0
    t = np.clip(((a - x0) * dx + (b - y0) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
    return np.asarray(np.hypot(a - x0 - t * dx, b - y0 - t * dy))
