"""A car as flat arrays of triangles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bench.rendered_cars.camera import Camera, Floats
from bench.rendered_cars.raster import Raster

if TYPE_CHECKING:
    import pyvista as pv

    from bench.rendered_cars.materials import Part

CREASE_DEG = 35.0
SKY_VIEWS = 16
SKY_SIZE = 192


@dataclass(frozen=True)
class Body:
    """The triangles of a car: `n` triangles of `p` points in `m` parts."""

    points: Floats  # (p, 3) metres
    normals: Floats  # (p, 3) unit length
    coords: Floats  # (p, 2) of textures
    faces: npt.NDArray[np.int32]  # (n, 3) points
    part: npt.NDArray[np.int32]  # (n,)
    parts: "tuple[Part, ...]"

    @property
    def glass(self) -> npt.NDArray[np.bool_]:
        """Whether each triangle is transparent, (n,)."""
        return np.array([part.material.opacity < 0.995 for part in self.parts])[self.part]

    def planes(self) -> Floats:
        """Per triangle the rows that find a ray's hit and its barycentric place in it, (n, 12): see `surface.hits`."""
        a, b, c = (self.points[self.faces[:, i]].astype(np.float64) for i in range(3))
        normal = np.cross(b - a, c - a)
        square = np.einsum("ij,ij->i", normal, normal)[:, None]
        rows = [normal, np.einsum("ij,ij->i", normal, a)[:, None]]
        for edge in (np.cross(c - a, normal) / square, np.cross(normal, b - a) / square):
            rows += [edge, -np.einsum("ij,ij->i", edge, a)[:, None]]
        return np.hstack(rows).astype(np.float32)


def body_of(parts: "Sequence[Part]") -> Body:
    """The parts of a car as one body."""
    meshes = [_with_normals(part) for part in parts]
    points = np.concatenate([np.asarray(mesh.points, np.float32) for mesh in meshes])
    starts = np.cumsum([0] + [mesh.n_points for mesh in meshes])
    loose = [mesh.faces.reshape(-1, 4)[:, 1:] + start for mesh, start in zip(meshes, starts, strict=False)]
    faces = np.concatenate(loose).astype(np.int32)
    normals = np.concatenate([np.asarray(mesh.point_data["Normals"], np.float32) for mesh in meshes])
    a, b, c = (points[faces[:, i]] for i in range(3))
    across = np.cross(b - a, c - a)
    flat = np.linalg.norm(across, axis=1) > 1e-9  # a triangle without an area is met by no ray
    # What is seen from behind is not drawn: corners run counterclockwise about the normals.
    turned = np.einsum("ij,ij->i", across, normals[faces].sum(1)) < 0
    faces[turned] = faces[turned, ::-1]
    coords = [mesh.active_texture_coordinates for mesh in meshes]
    return Body(
        points,
        normals,
        np.concatenate(
            [np.zeros((m.n_points, 2)) if c is None else c[:, :2] for m, c in zip(meshes, coords, strict=True)]
        ).astype(np.float32),
        faces[flat],
        np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in loose])[flat],
        tuple(parts),
    )


def _with_normals(part: "Part") -> "pv.PolyData":
    mesh = part.mesh if part.mesh.is_all_triangles else part.mesh.triangulate()
    if "Normals" in mesh.point_data:
        return mesh
    smooth: pv.PolyData = mesh.compute_normals(split_vertices=True, feature_angle=CREASE_DEG, auto_orient_normals=False)
    return smooth


def open_sky(body: Body, raster: Raster) -> Floats:
    """The share of the sky that each point sees, (p,), 0..1; the raster must hold the body."""
    points = body.points + body.normals * np.float32(0.012)
    seen, weight = np.zeros(len(points), np.float32), np.full(len(points), 1e-4, np.float32)
    for number in range(SKY_VIEWS):  # a Fibonacci spiral: evenly spread over the upper half
        height = (number + 0.5) / SKY_VIEWS
        azimuth = number * 2.399963
        flat = np.sqrt(1 - height * height)
        direction = np.array((flat * np.cos(azimuth), flat * np.sin(azimuth), height), np.float32)
        light = Camera.looking(direction * 60, np.array((0, 0, 0.6), np.float32), 2.9 / 60, 1.0)
        facing = np.maximum(body.normals @ direction, 0)
        seen += facing * reached(points, light, raster.depth(light, SKY_SIZE, glass=False), 0.02)
        weight += facing
    return seen / weight


def reached(points: Floats, light: Camera, depth: Floats, slack_m: float) -> Floats:
    """Which points (n, 3) a light reaches, 0 or 1, by the depths (size, size) that are seen from it."""
    size = len(depth)
    x, y, away = light.project(points)
    column = np.clip((x * size).astype(np.int32), 0, size - 1)
    row = np.clip((y * size).astype(np.int32), 0, size - 1)
    return (away <= depth[row, column] + np.float32(slack_m)).astype(np.float32)
