"""The sides: seams of doors, hood and boot, handles, cladding, mouldings."""

import numpy as np

from bench.rendered_cars.design import Design
from bench.rendered_cars.glass import pillar_places, row_end
from bench.rendered_cars.kit import Kit
from bench.rendered_cars.materials import CHROME, GLOSS_BLACK, PLASTIC, SEAM, paint, seam
from bench.rendered_cars.shapes import Corner, box
from bench.rendered_cars.soup import Floats, Soup, blob

SEAM_WIDTH = 0.014


def add_flanks(kit: Kit, colour: str) -> None:
    """Adds the parts of the sides, and the seams of the lids."""
    _cladding(kit)
    _doors(kit, colour)
    _lids(kit, colour)
    d = kit.shell.design
    if d.moulding != "none":
        material = {"paint": paint(colour), "black": PLASTIC, "chrome": CHROME}[d.moulding]
        z = d.ground + 0.42 * (d.belt_front - d.ground) - (0.10 if d.moulding == "chrome" else 0.0)
        tall = 0.045 if d.moulding != "chrome" else 0.022
        lines = kit.shell.lines
        strip = box(
            lines.rear_axle + kit.shell.arch + 0.06, lines.front_axle - kit.shell.arch - 0.06, z, z + tall, 0.01
        )
        kit.stick("moulding", material, kit.drawn("side", strip, 0.010, 0.05))


def rear_edge(d: Design) -> float:
    """How high the rear bumper's dark part reaches."""
    return d.ground + 0.08 + (0.08 if d.cladding == "none" else 0.05 + 0.7 * d.cladding_height)


def _cladding(kit: Kit) -> None:
    """Dark plastic along the lower edge, and around the arches of cars that go off the road."""
    d, lines = kit.shell.design, kit.shell.lines
    side = {"none": 0.03, "low": 0.10, "full": d.cladding_height}[d.cladding]
    front = 0.05 if d.cladding == "none" else 0.05 + 0.6 * d.cladding_height
    rear = rear_edge(d) - d.ground

    def value(soup: Soup) -> Floats:
        """Distance below the edge of the dark part."""
        x, z = soup.points[:, 0], soup.points[:, 2]
        edge = d.ground + np.interp(
            x,
            [lines.rear_axle - 0.3, lines.rear_axle, lines.front_axle, lines.front_axle + 0.3],
            [rear, side, side, front],
        )
        low = edge - z
        if d.cladding == "full":
            for axle in (lines.front_axle, lines.rear_axle):
                low = np.maximum(low, kit.shell.arch + 0.055 - np.hypot(x - axle, z - d.wheel_radius))
        return np.asarray(low)

    kit.stick("cladding", PLASTIC, kit.patch("skirt", value, 0.003, 0.06))


def _doors(kit: Kit, colour: str) -> None:
    """Seams around the doors, and their handles."""
    d, lines, shell = kit.shell.design, kit.shell.lines, kit.shell
    gap = seam(colour)
    low = d.ground + 0.09
    middle, lean = pillar_places(kit)[0]
    ahead = min(lines.cowl - 0.10, lines.front_axle - shell.arch - 0.10)

    def belt(x: float) -> float:
        """Just below the windows."""
        return float(lines.at("belt", x)) + 0.02

    paths: list[list[Corner]] = [
        [
            (ahead + 0.02, belt(ahead)),
            (ahead + 0.03, (low + belt(ahead)) / 2),
            (ahead - 0.03, low + 0.12),
            (ahead - 0.10, low),
        ],
        [(middle - lean * 0.03, belt(middle)), (middle, low)],
    ]
    ends = [middle]
    if d.side_windows != "coupe":
        end = row_end(kit) + (d.quarter * 0.55 if d.side_windows == "three" else 0.0)
        end = min(max(end, lines.rear_axle - 0.10), middle - 0.62)
        foot = lines.rear_axle + shell.arch + 0.05
        knee = (min(foot - 0.02, end + 0.36), d.wheel_radius + shell.arch * 0.72)
        paths.append(
            [(end, belt(end)), (end + 0.03, d.wheel_radius + shell.arch + 0.08), knee, (max(foot, knee[0]), low)]
        )
        paths.append([(ahead - 0.10, low), (max(foot, knee[0]), low)])
        ends.append(end)
    else:
        paths.append([(ahead - 0.10, low), (middle, low)])
    for path in paths:
        kit.stick("seam", gap, kit.ribbon("side", path, SEAM_WIDTH))
    if d.side_windows == "three" and d.height > 1.7 and d.hood_z < 1.02 and d.dash < 0.25:  # the rail of a sliding door
        kit.stick(
            "seam",
            SEAM,
            kit.ribbon("side", [(ends[-1], belt(ends[-1]) - 0.2), (lines.tail + 0.35, belt(lines.tail) - 0.2)], 0.02),
        )
    material = {"paint": paint(colour), "chrome": CHROME, "black": GLOSS_BLACK}[d.handles]
    for place in ends:
        x, z = place + 0.15, belt(place) - 0.11
        spot, normal = kit.spot("side", x, z)
        kit.stick("seam", SEAM, kit.drawn("side", box(x - 0.075, x + 0.075, z - 0.032, z + 0.02, 0.02), 0.002, 0.04))
        kit.stick("handle", material, blob((spot + 0.018 * normal).tolist(), (0.20, 0.03, 0.028), 0.6, 6, 8))
    tank = row_end(kit) - 0.25
    square = [
        (tank, belt(tank) - 0.1),
        (tank - 0.15, belt(tank) - 0.1),
        (tank - 0.15, belt(tank) - 0.25),
        (tank, belt(tank) - 0.25),
    ]
    kit.add("seam", gap, kit.ribbon("side", [*square, square[0]], 0.007))


def _lids(kit: Kit, colour: str) -> None:
    """Seams of the hood, of the boot or tailgate, and of the bumpers."""
    d, lines = kit.shell.design, kit.shell.lines
    half, gap = d.width / 2, seam(colour)

    def nose_at(y: float) -> float:
        """The hood's front edge follows the nose."""
        return float(lines.nose - d.nose_round * 1.1 - d.nose_plan * (y / half) ** 2.4 - d.nose_rake * 1.1)

    side = [(lines.cowl - 0.02, half * 0.86), (lines.front_axle, half * 0.84), (nose_at(half * 0.72), half * 0.72)]
    kit.stick("seam", gap, kit.ribbon("top", side, SEAM_WIDTH))
    edge = [(nose_at(y), y) for y in np.linspace(0, half * 0.72, 9)]
    kit.stick("seam", gap, kit.ribbon("top", edge, SEAM_WIDTH))
    low = d.tail_z * min(d.rear_plate_z, 0.74) - 0.12 if d.deck < 0.3 or d.rear_plate_z > 0.58 else d.tail_z * 0.66
    lid = half * (0.78 if d.deck < 0.3 else 0.70)
    path = [(0.0, low), (lid * 0.92, low), (lid, low + 0.10), (lid * 1.02, d.tail_z - 0.06)]
    kit.stick("seam", gap, kit.ribbon("rear", path, SEAM_WIDTH))
    if d.deck > 0.2 and d.bed == "none":
        boot = [(lines.base + 0.04, lid), (lines.tail + d.tail_round + 0.14, lid)]
        kit.stick("seam", gap, kit.ribbon("top", boot, SEAM_WIDTH))
    for axle, end, sign in ((lines.front_axle, lines.nose, 1), (lines.rear_axle, lines.tail, -1)):
        z = d.wheel_radius + kit.shell.arch * 0.62
        start = axle + sign * (kit.shell.arch * 0.80)
        bumper = [(start, z), (end - sign * 0.30, z + 0.05)]
        kit.stick("seam", gap, kit.ribbon("side", bumper, SEAM_WIDTH))
