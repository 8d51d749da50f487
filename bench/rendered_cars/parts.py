"""What a built car is made of: meshes, each with its material and the role it plays."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyvista as pv

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """How a surface looks; colours are sRGB from 0 to 1, `emissive` may exceed 1."""

    albedo: Colour
    metallic: float = 0.0
    roughness: float = 0.5
    clearcoat: float = 0.0
    opacity: float = 1.0
    emissive: Colour = (0.0, 0.0, 0.0)
    texture: npt.NDArray[np.uint8] | None = None  # height x width x 3, in place of the albedo


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Triangles of one material with smooth normals at their points."""

    mesh: pv.PolyData
    material: Material
    role: str
