"""Builds the parts of a car."""

import numpy as np

from bench.rendered_cars.catalogue import Car
from bench.rendered_cars.extras import add_extras
from bench.rendered_cars.face import add_face
from bench.rendered_cars.flanks import add_flanks
from bench.rendered_cars.glass import add_glass
from bench.rendered_cars.kit import Kit
from bench.rendered_cars.materials import WELL, Part, paint
from bench.rendered_cars.rear import add_rear
from bench.rendered_cars.shell import loft
from bench.rendered_cars.soup import block
from bench.rendered_cars.wheels import add_wheels


def build(car: Car, lamps_lit: bool) -> list[Part]:
    """All parts of a car. It stands on z = 0 with its middle at the origin and its nose towards x."""
    kit = Kit(loft(car.design))
    kit.add("paint", paint(car.colour), kit.shell.surface)
    _inside(kit)
    add_wheels(kit)
    add_glass(kit, paint(car.colour))
    add_face(kit, car.colour, lamps_lit)
    add_rear(kit, car.colour, lamps_lit)
    add_flanks(kit, car.colour)
    add_extras(kit, car.colour)
    return kit.parts()


def _inside(kit: Kit) -> None:
    """A dark block inside, so that the wheel arches do not show through."""
    d, lines = kit.shell.design, kit.shell.lines
    half = d.width / 2
    low = np.array([lines.tail + 0.30, -half + 0.33, d.ground - 0.01])
    high = np.array([lines.nose - 0.40, half - 0.33, min(d.hood_z, d.tail_z) - 0.12])
    kit.add("underbody", WELL, block(low, high))
    floor = block((lines.tail + 0.50, -half + 0.14, d.ground), (lines.nose - 0.45, half - 0.14, d.ground + 0.03))
    kit.add("underbody", WELL, floor)
