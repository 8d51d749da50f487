"""Triangle soups: cutting, refining and joining them, and solids made of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyvista as pv

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Soup:
    """Points with normals and texture coordinates, and triangles over them."""

    points: Floats  # n, 3
    normals: Floats  # n, 3
    uv: Floats  # n, 2
    faces: Ints  # m, 3

    def polydata(self) -> pv.PolyData:
        """The soup as a VTK mesh."""
        padded = np.column_stack([np.full(len(self.faces), 3), self.faces]).ravel()
        mesh = pv.PolyData(self.points.astype(np.float32), faces=padded)
        mesh.point_data["Normals"] = self.normals.astype(np.float32)
        mesh.point_data.active_normals_name = "Normals"
        mesh.point_data["Texture Coordinates"] = self.uv.astype(np.float32)
        mesh.point_data.active_texture_coordinates_name = "Texture Coordinates"
        return mesh

    def compact(self) -> "Soup":
        """The soup without unused points."""
        used = np.zeros(len(self.points), dtype=bool)
        used[self.faces] = True
        place = np.cumsum(used) - 1
        return Soup(self.points[used], self.normals[used], self.uv[used], place[self.faces])

    def mirrored(self) -> "Soup":
        """The soup mirrored to the other side of the car."""
        flip = np.array([1.0, -1.0, 1.0])
        return Soup(self.points * flip, self.normals * flip, self.uv, self.faces[:, ::-1])


def join(soups: Sequence[Soup]) -> Soup:
    """Several soups as one."""
    starts = np.cumsum([0] + [len(soup.points) for soup in soups])
    return Soup(
        np.concatenate([soup.points for soup in soups]),
        np.concatenate([soup.normals for soup in soups]),
        np.concatenate([soup.uv for soup in soups]),
        np.concatenate([soup.faces + start for soup, start in zip(soups, starts, strict=False)]),
    )


def both(soup: Soup) -> Soup:
    """A soup and its mirror image."""
    return join([soup, soup.mirrored()])


def grid(points: Floats, closed: bool = False) -> Soup:
    """A surface over rows and columns of points, its normals to the left of the rows' direction seen along columns."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    flat = points.reshape(-1, 3)
    normals = vertex_normals(flat, faces)
    square = normals.reshape(rows, columns, 3)
    for row in (0, -1):  # a pole, many points in one place, has one normal
        if np.ptp(points[row], axis=0).max() < 1e-9:
            square[row] = _unit(square[row].sum(axis=0, keepdims=True))
    if closed:  # the last column repeats the first: one seamless normal for both
        square[:, 0] = square[:, -1] = _unit(square[:, 0] + square[:, -1])
    return Soup(flat, normals, np.stack([u.ravel(), v.ravel()], -1), faces)


def vertex_normals(points: Floats, faces: Ints) -> Floats:
    """Normals at points, each the sum over its triangles by area."""
    corners = points[faces]
    crossed = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(points)
    for axis in range(3):
        total[:, axis] = np.bincount(faces.ravel(), weights=np.repeat(crossed[:, axis], 3), minlength=len(points))
    return _unit(total)


def _unit(vectors: Floats) -> Floats:
    """The vectors at length one."""
    lengths: Floats = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))


def edge_squares(corners: Floats) -> Floats:
    """Squared lengths (n, 3) of the edges ab, bc, ca of triangles (n, 3, 3)."""
    gaps = corners - corners[:, (1, 2, 0)]
    return np.asarray(np.einsum("ijk,ijk->ij", gaps, gaps))


def bisect(soup: Soup) -> Soup:
    """Every triangle split at the middle of its longest edge, which avoids slivers."""
    corners = soup.points[soup.faces]
    squares = edge_squares(corners)
    first, rows = np.argmax(squares, axis=1), np.arange(len(soup.faces))
    a, b, c = (soup.faces[rows, (first + k) % 3] for k in range(3))
    grown = _with_points(soup, a, b, np.full(len(rows), 0.5))
    middle = len(soup.points) + rows
    faces = np.concatenate([np.stack([a, middle, c], -1), np.stack([middle, b, c], -1)])
    return Soup(grown.points, grown.normals, grown.uv, faces)


def cut(soup: Soup, values: Floats) -> Soup:
    """The part where the values at points are positive; its border is interpolated."""
    inside = values > 0
    a, b, c = inside[soup.faces].T.astype(np.int8)
    count = a + b + c
    kept = [soup.faces[count == 3]]
    first, second = [], []
    start = len(soup.points)
    for wanted in (1, 2):
        faces = soup.faces[count == wanted]
        # Roll each triangle so that its odd corner comes first.
        odd = np.argmax(inside[faces] == (wanted == 1), axis=1)
        rows = np.arange(len(faces))
        a, b, c = (faces[rows, (odd + k) % 3] for k in range(3))
        first += [a, a]
        second += [b, c]
        ab, ac = start + rows, start + len(faces) + rows
        start += 2 * len(faces)
        kept += [np.stack([a, ab, ac], -1)] if wanted == 1 else [np.stack([ab, b, c], -1), np.stack([ab, c, ac], -1)]
    i, j = np.concatenate(first), np.concatenate(second)
    gap = values[i] - values[j]
    grown = _with_points(soup, i, j, values[i] / np.where(gap == 0, 1, gap))
    return Soup(grown.points, grown.normals, grown.uv, np.concatenate(kept)).compact()


def _with_points(soup: Soup, i: Ints, j: Ints, t: Floats) -> Soup:
    """The soup and, after its own, points a fraction t of the way from i to j."""
    t = t[:, None]
    points = np.concatenate([soup.points, soup.points[i] * (1 - t) + soup.points[j] * t])
    between = soup.normals[i] * (1 - t) + soup.normals[j] * t
    uv = np.concatenate([soup.uv, soup.uv[i] * (1 - t) + soup.uv[j] * t])
    return Soup(points, np.concatenate([soup.normals, _unit(between)]), uv, soup.faces)


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
    """A box with smooth normals, for dark parts."""
    a, b = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    return blob(((a + b) / 2).tolist(), (b - a).tolist(), 0.05, 7, 12)
