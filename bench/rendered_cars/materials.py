"""Materials, the palette of paints, and parts: a mesh of one material."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # the catalogue needs colours only, and works without the renderer
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

    mesh: "pv.PolyData"
    material: Material
    role: str


# Colour: how frequent, sRGB, how metallic.
COLOURS: dict[str, tuple[float, tuple[float, float, float], float]] = {
    "white": (24, (0.90, 0.90, 0.89), 0.0),
    "silver": (13, (0.70, 0.71, 0.72), 0.55),
    "black": (16, (0.035, 0.035, 0.04), 0.1),
    "grey": (11, (0.42, 0.43, 0.44), 0.45),
    "dark grey": (9, (0.20, 0.21, 0.22), 0.4),
    "pearl": (7, (0.88, 0.87, 0.83), 0.15),
    "blue": (5, (0.10, 0.24, 0.55), 0.35),
    "navy": (5, (0.06, 0.09, 0.20), 0.3),
    "red": (5, (0.66, 0.07, 0.08), 0.2),
    "wine": (2, (0.30, 0.06, 0.09), 0.35),
    "beige": (4, (0.74, 0.68, 0.58), 0.35),
    "brown": (3, (0.30, 0.22, 0.17), 0.4),
    "green": (2, (0.14, 0.28, 0.20), 0.3),
    "sky blue": (2, (0.52, 0.66, 0.76), 0.3),
    "orange": (1, (0.85, 0.38, 0.08), 0.2),
    "yellow": (1, (0.90, 0.74, 0.18), 0.0),
}


@lru_cache(maxsize=64)
def paint(colour: str) -> Material:
    """The lacquer of a colour."""
    _, albedo, metallic = COLOURS[colour]
    return Material(albedo, metallic=metallic, roughness=0.35, clearcoat=1.0)


@lru_cache(maxsize=64)
def seam(colour: str) -> Material:
    """The gap between two panels. It is wider than a real one, to be seen in a small photo, and so less dark."""
    red, green, blue = COLOURS[colour][1]
    return Material((0.38 * red, 0.38 * green, 0.38 * blue), roughness=0.9)


GLASS = Material((0.025, 0.03, 0.032), metallic=0.0, roughness=0.06, clearcoat=0.6)
GLOSS_BLACK = Material((0.022, 0.022, 0.024), roughness=0.3)
PLASTIC = Material((0.055, 0.055, 0.058), roughness=0.75)
SEAM = Material((0.015, 0.015, 0.015), roughness=1.0)
WELL = Material((0.012, 0.012, 0.012), roughness=1.0)
CHROME = Material((0.80, 0.81, 0.83), metallic=1.0, roughness=0.14)
SILVER = Material((0.62, 0.63, 0.65), metallic=0.8, roughness=0.35)
TYRE = Material((0.035, 0.035, 0.036), roughness=0.9)
RED_LENS = Material((0.42, 0.015, 0.02), roughness=0.12, clearcoat=0.5)
BULB = Material((1.0, 0.98, 0.92), roughness=0.3, emissive=(6.0, 5.8, 5.2))
DAYLIGHT = Material((0.9, 0.9, 0.9), roughness=0.3, emissive=(0.55, 0.54, 0.50))
RED_LIGHT = Material((0.9, 0.05, 0.06), roughness=0.3, emissive=(3.6, 0.30, 0.38))
BRAKE_LIGHT = Material((0.9, 0.05, 0.06), roughness=0.3, emissive=(1.6, 0.04, 0.05))
BED = Material((0.05, 0.05, 0.052), roughness=0.85)
