"""Solids that are not cut from the shell: turned, drawn out, or rounded."""

from collections.abc import Sequence

import numpy as np

from bench.rendered_cars.soup import Floats, Soup, grid


def turned(profile: Sequence[tuple[float, float]], centre: Sequence[float], sides: int = 32) -> Soup:
    """A profile of (radius, y) turned about an axle; texture coordinates see it from the side."""
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    radius, y = np.asarray(profile, dtype=float).T
    points = np.stack(
        [
            centre[0] + radius[:, None] * np.cos(angle),
            centre[1] + np.repeat(y[:, None], sides + 1, axis=1),
            centre[2] + radius[:, None] * np.sin(angle),
        ],
        axis=-1,
    )
    soup = grid(points, closed=True)
    widest = radius.max()
    uv = np.stack([(soup.points[:, 0] - centre[0]), (soup.points[:, 2] - centre[2])], -1) / (2 * widest) + 0.5
    return Soup(soup.points, soup.normals, uv, soup.faces)


def blob(centre: Sequence[float], size: Sequence[float], square: float = 0.5, rings: int = 9, sides: int = 16) -> Soup:
    """A rounded box: an ellipsoid whose exponent goes from 1, round, towards 0, square."""
    up, around = np.linspace(-np.pi / 2, np.pi / 2, rings), np.linspace(0, 2 * np.pi, sides + 1)

    def power(value: Floats) -> Floats:
        """Keeps the sign."""
        return np.sign(value) * np.abs(value) ** square

    points = np.stack(
        [
            power(np.cos(up))[:, None] * power(np.cos(around)),
            power(np.cos(up))[:, None] * power(np.sin(around)),
            np.repeat(power(np.sin(up))[:, None], sides + 1, axis=1),
        ],
        axis=-1,
    )
    soup = grid(points[:, ::-1] * (np.asarray(size) / 2) + np.asarray(centre), closed=True)
    outward = np.sign(((soup.points - np.asarray(centre)) * soup.normals).sum(axis=1))
    return soup if outward.sum() > 0 else Soup(soup.points, -soup.normals, soup.uv, soup.faces[:, ::-1])


def tube(path: Floats, radius: float, sides: int = 6) -> Soup:
    """A round bar along a path of points that does not run straight up."""
    forward = np.gradient(path, axis=0)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    across = np.cross(forward, [0.0, 0.0, 1.0])
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    up = np.cross(across, forward)
    angle = np.linspace(0, 2 * np.pi, sides + 1)[None, :, None]
    return grid(path[:, None] + radius * (across[:, None] * np.cos(angle) + up[:, None] * np.sin(angle)), closed=True)


def card(centre: Sequence[float], right: Sequence[float], up: Sequence[float]) -> Soup:
    """A flat rectangle spanned by half its width and half its height."""
    middle, a, b = (np.asarray(v, dtype=float) for v in (centre, right, up))
    points = np.stack([middle - a - b, middle + a - b, middle + a + b, middle - a + b])
    normal = np.cross(a, b)
    normals = np.repeat(normal[None] / np.linalg.norm(normal), 4, axis=0)
    uv = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return Soup(points, normals, uv, np.array([[0, 1, 2], [0, 2, 3]]))


def block(low: Sequence[float] | Floats, high: Sequence[float] | Floats) -> Soup:
    """A box, its faces shaded as if round: for what is dark anyway."""
    a, b = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    return blob(((a + b) / 2).tolist(), (b - a).tolist(), 0.05, 7, 12)
