"""The meshes of the rendered benchmark's cars: every name can be built, in its own measures."""

import numpy as np
import pytest

from bench.rendered_cars.assembly import build
from bench.rendered_cars.catalogue import cars
from bench.rendered_cars.materials import Part

pytestmark = pytest.mark.slow
CARS = cars("test")


def extent(
    parts: list[Part], *, skip: tuple[str, ...] = ()
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    """Lowest and highest corner of all parts but some."""
    points = np.concatenate([np.asarray(part.mesh.points, dtype=np.float64) for part in parts if part.role not in skip])
    return points.min(axis=0), points.max(axis=0)


def test_every_name_of_the_test_split_builds() -> None:
    one_of_each_name = {car.name: car for car in reversed(CARS)}.values()
    for number, car in enumerate(one_of_each_name):
        parts = build(car, lamps_lit=number % 2 == 0)
        for part in parts:
            assert np.isfinite(part.mesh.points).all(), (car.name, part.role)
            normals = np.asarray(part.mesh.point_data["Normals"])
            assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-3), (car.name, part.role)
            assert part.mesh.n_cells * 4 == len(part.mesh.faces), part.role
        low, high = extent(parts)
        assert abs(low[2]) < 0.002, car.name
        assert low[1] == pytest.approx(-high[1], abs=0.02)
        low, high = extent(parts, skip=("mirror", "glass", "trim", "aerial", "rails", "plate"))
        size = high - low
        assert abs(high[0] + low[0]) < 0.25, car.name
        assert size == pytest.approx([car.design.length, car.design.width, car.design.height], abs=0.16), car.name
        assert 3.2 < size[0] < 5.6
        assert sum(part.mesh.n_cells for part in parts) < 80_000, car.name
        assert {"paint", "glass", "tyre", "rim", "head_lamp", "tail_lamp", "plate", "seam"} <= {
            part.role for part in parts
        }


def test_lamps_shine_only_when_lit() -> None:
    car = CARS[0]
    for lit in (False, True):
        shining = {part.role for part in build(car, lit) if max(part.material.emissive) > 0}
        assert ({"head_lamp", "tail_lamp"} <= shining) is lit
        assert lit or not shining


def test_the_same_car_builds_the_same_meshes() -> None:
    first, again = build(CARS[1], lamps_lit=False), build(CARS[1], lamps_lit=False)
    for a, b in zip(first, again, strict=True):
        assert a.role == b.role
        assert np.array_equal(np.asarray(a.mesh.points), np.asarray(b.mesh.points))
