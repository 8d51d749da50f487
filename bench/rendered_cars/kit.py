"""The kit that a car is built with: patches cut from its shell, and solids, grouped by role and material."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench.rendered_cars.materials import Material, Part
from bench.rendered_cars.shapes import Corner, Shape
from bench.rendered_cars.shell import Shell
from bench.rendered_cars.soup import Floats, Soup, bisect, both, cut, edge_squares, join

Field = Callable[[Soup], Floats]
PLAIN = 0.05  # metres; borders of large patches are straight at this grain
FINE = 0.03  # and those of patches with small corners at this


@dataclass(slots=True)
class Kit:
    """A car being built."""

    shell: Shell
    pieces: dict[tuple[str, int], tuple[Material, list[Soup]]] = field(default_factory=dict)
    regions: dict[str, Soup] = field(default_factory=dict)

    def add(self, role: str, material: Material, soup: Soup) -> None:
        """Adds a piece."""
        if len(soup.faces):
            self.pieces.setdefault((role, id(material)), (material, []))[1].append(soup)

    def parts(self) -> list[Part]:
        """All pieces, joined by role and material."""
        return [Part(join(soups).polydata(), material, role) for (role, _), (material, soups) in self.pieces.items()]

    def region(self, name: str) -> Soup:
        """The part of the shell that faces one way; for paired regions, the left one."""
        if name not in self.regions:
            surface = self.shell.surface
            x, y, z = surface.points.T
            nx, ny, nz = surface.normals.T
            nose, tail = self.shell.lines.nose, self.shell.lines.tail
            glass = z - self.shell.lines.at("belt", surface.uv[:, 0]) - 0.01
            # Cut, not picked by triangle: where a patch meets the end of its region its border is smooth too.
            bounds = {
                "side": (ny - 0.15, y - 0.2),
                "nose": (nx + ny - 0.30, nx + 0.15, x - nose + 1.2, y + 0.1, 0.86 - nz),
                "tail": (ny - nx - 0.25, 0.15 - nx, tail + 1.2 - x, y + 0.1, 0.86 - nz),
                "skirt": (0.8 - z, y + 0.02, nz + 0.8),
                "front": (nx - 0.25, x - nose + 0.6),
                "rear": (-0.2 - nx, tail + 0.6 - x),
                "screen": (nx - 0.12, self.shell.lines.cowl + 0.15 - x, nz - 0.05, glass),
                "back": (-0.08 - nx, self.shell.lines.roof_end + 0.3 - x, glass),
                "top": (nz - 0.25,),
            }[name]
            self.regions[name] = cut(surface, np.minimum.reduce(bounds))
        return self.regions[name]

    def plane(self, region: str, soup: Soup) -> tuple[Floats, Floats]:
        """Coordinates in which a region's shapes are drawn; around corners the way across adds to the way along."""
        x, y, z = soup.points.T
        if region == "side":
            return soup.uv[:, 0], z
        if region == "nose":
            return y + self.shell.lines.nose - x, z
        if region == "tail":
            return y + x - self.shell.lines.tail, z
        if region == "skirt":
            return x, z
        return (x, y) if region == "top" else (y, z)

    def patch(self, region: str, value: Field, lift: float, grain: float = PLAIN) -> Soup:
        """The part of a region where a field is positive, lifted off the body."""
        return _lifted(_carve(self.region(region), value, grain), lift)

    def drawn(self, region: str, shape: Shape, lift: float, grain: float = FINE) -> Soup:
        """The part of a region within a shape."""
        return self.patch(region, lambda soup: shape(*self.plane(region, soup)), lift, grain)

    def pictured(self, region: str, shape: Shape, lift: float, frame: tuple[float, float, float, float]) -> Soup:
        """The same with texture coordinates that run over a frame: left, right, low, high."""
        soup = self.drawn(region, shape, lift)
        # After lifting, so off by less than a pixel of any texture.
        a, b = self.plane(region, soup)
        left, right, low, high = frame
        return Soup(soup.points, soup.normals, np.stack([(a - left) / (right - left), (b - low) / (high - low)], -1),
                    soup.faces)  # fmt: skip

    def locate(self, region: str, a: Floats, b: Floats) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
        """Points of the shell at places of a region's plane, the normals there, and which places it covers."""
        soup = self.region(region)
        pa, pb = self.plane(region, soup)
        ta, tb = pa[soup.faces], pb[soup.faces]
        reach = 0.01
        near = (ta.max(1) > a.min() - reach) & (ta.min(1) < a.max() + reach)
        near &= (tb.max(1) > b.min() - reach) & (tb.min(1) < b.max() + reach)
        faces, ta, tb = soup.faces[near], ta[near], tb[near]
        if not len(faces):
            return np.zeros((len(a), 3)), np.zeros((len(a), 3)), np.zeros(len(a), dtype=bool)
        ua, ub, va, vb = ta[:, 1] - ta[:, 0], tb[:, 1] - tb[:, 0], ta[:, 2] - ta[:, 0], tb[:, 2] - tb[:, 0]
        area = ua * vb - ub * va
        area = np.where(np.abs(area) < 1e-12, 1e-12, area)
        da, db = a[:, None] - ta[:, 0], b[:, None] - tb[:, 0]
        second, third = (da * vb - db * va) / area, (db * ua - da * ub) / area
        worst = np.minimum(np.minimum(second, third), 1 - second - third)
        best = np.argmax(worst, axis=1)
        rows = np.arange(len(a))
        weights = np.stack([1 - second[rows, best] - third[rows, best], second[rows, best], third[rows, best]], -1)
        corners = faces[best]
        normals = np.einsum("ij,ijk->ik", weights, soup.normals[corners])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        return np.einsum("ij,ijk->ik", weights, soup.points[corners]), normals, worst[rows, best] > -0.02

    def spot(self, region: str, a: float, b: float) -> tuple[Floats, Floats]:
        """The point of the shell at one place of a region's plane, or the nearest that the region has."""
        soup = self.region(region)
        pa, pb = self.plane(region, soup)
        points, normals, covered = self.locate(region, np.array([a]), np.array([b]))
        if covered[0]:
            return points[0], normals[0]
        nearest = int(np.argmin((pa - a) ** 2 + (pb - b) ** 2))
        return soup.points[nearest], soup.normals[nearest]

    def ribbon(self, region: str, path: Sequence[Corner], width: float, lift: float = 0.002) -> Soup:
        """A narrow strip along a path; where the region does not cover the path there is none."""
        knots = np.asarray(path, dtype=float)
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
        steps = np.linspace(0, along[-1], max(2, round(along[-1] / 0.05) + 1))
        line = np.stack([np.interp(steps, along, knots[:, k]) for k in range(2)], -1)
        heading = np.gradient(line, axis=0)
        heading /= np.maximum(np.linalg.norm(heading, axis=1, keepdims=True), 1e-9)
        beside = np.stack([-heading[:, 1], heading[:, 0]], -1) * width / 2
        edges = np.concatenate([line + beside, line - beside])
        points, normals, covered = self.locate(region, edges[:, 0], edges[:, 1])
        count = len(line)
        whole = covered[:count] & covered[count:]
        i = np.flatnonzero(whole[:-1] & whole[1:])
        faces = np.concatenate([np.stack(t, -1) for t in ((i, i + count, i + count + 1), (i, i + count + 1, i + 1))])
        turned = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
        if len(faces) and (turned * normals[faces[:, 0]]).sum() < 0:
            faces = faces[:, ::-1]
        return _lifted(Soup(points, normals, np.zeros((2 * count, 2)), faces).compact(), lift)

    def stick(self, role: str, material: Material, soup: Soup) -> None:
        """Adds a piece of the left side and its mirror image."""
        if len(soup.faces):
            self.add(role, material, both(soup))


def _lifted(soup: Soup, lift: float) -> Soup:
    """The soup moved along its normals."""
    return Soup(soup.points + lift * soup.normals, soup.normals, soup.uv, soup.faces)


def _carve(soup: Soup, value: Field, grain: float) -> Soup:
    """The part where a field, a distance, is positive; triangles are refined only along its border."""
    done = []
    for _ in range(9):
        values = value(soup)
        edges = np.sqrt(np.maximum.reduce(edge_squares(soup.points[soup.faces]).T))
        at_corners = values[soup.faces].T
        low, high = np.minimum.reduce(at_corners), np.maximum.reduce(at_corners)
        near = 0.22 * edges  # a true distance hides nothing farther from all corners
        inside, border = low > near, (high > -near) & (low <= near)
        done.append(Soup(soup.points, soup.normals, soup.uv, soup.faces[inside]).compact())
        soup = Soup(soup.points, soup.normals, soup.uv, soup.faces[border]).compact()
        if not len(soup.faces) or edges[border].max() < grain:
            break
        fine = edges[border] < grain
        if fine.any():
            settled = Soup(soup.points, soup.normals, soup.uv, soup.faces[fine]).compact()
            done.append(cut(settled, value(settled)))
            soup = Soup(soup.points, soup.normals, soup.uv, soup.faces[~fine]).compact()
        soup = bisect(soup)
    if len(soup.faces):
        done.append(cut(soup, value(soup)))
    return join(done)
