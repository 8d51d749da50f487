"""Windows: windscreen, rear window, and the row along each side with its pillars and trim."""

from functools import lru_cache

import numpy as np

from bench.rendered_cars import pictures
from bench.rendered_cars.kit import Field, Kit
from bench.rendered_cars.materials import CHROME, GLASS, GLOSS_BLACK, PLASTIC, Material
from bench.rendered_cars.shell import smooth
from bench.rendered_cars.soup import Floats, Soup

PILLAR = 0.055  # half the width of a middle pillar
TRIM = 0.016


def add_glass(kit: Kit, lacquer: Material) -> None:
    """Adds the windows."""
    _screens(kit)
    _sides(kit, lacquer)


def _screens(kit: Kit) -> None:
    """Windscreen with its cowl, and the rear window."""
    d, lines = kit.shell.design, kit.shell.lines

    def between(soup: Soup, low: float, high: float, pillar: float) -> Floats:
        """Distance to the border of a pane that spans the cabin from one x to another."""
        x, y, z = soup.uv[:, 0], np.abs(soup.points[:, 1]), soup.points[:, 2]
        # The slope turns a distance along x into one along the glass.
        steep = np.sqrt(1 + np.interp(x, lines.x, smooth(np.gradient(lines.top, lines.x), 0.06)) ** 2)
        side = kit.shell.cabin_half(x, z) - pillar - y
        return np.asarray(np.minimum(np.minimum(x - low, high - x) * steep, side))

    front = (lines.header - 0.02, lines.cowl + 0.035)
    kit.add("cowl", PLASTIC, kit.patch("screen", lambda s: between(s, lines.cowl - 0.03, front[1], 0.06), 0.001))
    kit.add("trim", GLOSS_BLACK, kit.patch("screen", lambda s: between(s, *front, 0.068), 0.002))
    pane = kit.patch("screen", lambda s: between(s, front[0] + 0.03, lines.cowl - 0.035, 0.085), 0.004)
    kit.add("glass", windscreen_material(), _seen_through(pane))
    # A steep rear window ends at heights, a flat one at lengths.
    steep = d.back_run < 0.5
    rear = (-0.0, 0.02) if d.bed == "open" else (0.02, -0.01)
    inset = 0.10 + 0.3 * max(0.0, 0.16 - d.back_run)

    def behind(soup: Soup, rim: float) -> Floats:
        """Distance to the border of the rear window, less a rim."""
        x, y, z = soup.uv[:, 0], np.abs(soup.points[:, 1]), soup.points[:, 2]
        if not steep:
            return between(soup, lines.base + rear[0] + rim, lines.roof_end + rear[1] - rim, inset + rim)
        ends = np.minimum(z - d.deck_z - 0.05, d.height - d.roof_drop - 0.085 - z)
        return np.asarray(np.minimum(ends, kit.shell.cabin_half(x, z) - inset - y) - rim)

    kit.add("trim", GLOSS_BLACK, kit.patch("back", lambda s: behind(s, 0.0), 0.002))
    kit.add("glass", GLASS, kit.patch("back", lambda s: behind(s, 0.014), 0.004))


@lru_cache(maxsize=1)
def windscreen_material() -> Material:
    """The windscreen's glass, with the cabin behind it."""
    return Material(GLASS.albedo, roughness=GLASS.roughness, clearcoat=GLASS.clearcoat, texture=pictures.cabin(0.42))


def _seen_through(pane: Soup) -> Soup:
    """The pane with texture coordinates over its width and height as seen from ahead."""
    y, z = pane.points[:, 1], pane.points[:, 2]
    uv = np.stack([0.5 + y / (2 * np.abs(y).max()), (z - z.min()) / np.ptp(z)], -1)
    return Soup(pane.points, pane.normals, uv, pane.faces)


def _sides(kit: Kit, lacquer: Material) -> None:
    """The row of side windows: chrome, black frame, panes."""
    d, trim = kit.shell.design, kit.shell.design.window_trim
    outline = outline_field(kit)
    if trim == "chrome":
        kit.stick("chrome", CHROME, kit.patch("side", lambda s: outline(s) + TRIM, 0.002))
    if trim == "sill":
        belt = kit.shell.lines

        def sill(soup: Soup) -> Floats:
            """Only along the lower edge."""
            low = belt.at("belt", soup.uv[:, 0]) + 0.10 - soup.points[:, 2]
            return np.minimum(outline(soup) + TRIM, low)

        kit.stick("chrome", CHROME, kit.patch("side", sill, 0.002))
    posts = pillar_places(kit)
    between = GLOSS_BLACK if d.pillars == "black" else lacquer
    kit.stick("trim" if d.pillars == "black" else "paint", between, kit.patch("side", outline, 0.004))

    def panes(soup: Soup) -> Floats:
        """The row without its pillars."""
        x, z = soup.uv[:, 0], soup.points[:, 2]
        free = outline(soup) - 0.014
        for number, (place, lean) in enumerate(posts):
            width = PILLAR if number == 0 else 0.028
            at = place - lean * (z - d.belt_rear)
            free = np.minimum(free, np.abs(x - at) - width)
        return free

    kit.stick("glass", GLASS, kit.patch("side", panes, 0.006))


def pillar_places(kit: Kit) -> list[tuple[float, float]]:
    """The pillars of the row, from the front: x at the belt, and the lean backwards in metres a metre of height."""
    d, lines = kit.shell.design, kit.shell.lines
    start, end = lines.cowl - 0.15, row_end(kit)
    middle = start + (end - start) * d.b_pillar * (1.06 if d.side_windows != "three" else 0.98)
    posts = [(middle, 0.12)]
    if d.side_windows in ("three", "coupe") and d.quarter > 0.15:
        posts.append((end + max(d.quarter, 0.2) * (1.0 if d.side_windows == "three" else 0.0), -0.25))
    if d.side_windows == "coupe":
        posts = posts[:1]
    # A small fixed pane where the mirror stands, on cars whose cowl lies far ahead.
    if d.dash < 0.28:
        posts.append((lines.cowl - 0.42, 0.5))
    return posts


def row_end(kit: Kit) -> float:
    """The x at which the row of windows ends: behind the rear axle for long roofs, above it for others."""
    d, lines = kit.shell.design, kit.shell.lines
    if d.bed == "open":
        return lines.base + 0.20
    long_roof = float(np.clip((0.55 - d.deck - d.back_run) / 0.25, 0, 1))
    behind = lines.base + 0.26 if d.side_windows == "three" else lines.base + 0.26 + 0.6 * d.quarter + 0.18
    over = min(lines.rear_axle + 0.02, lines.base + 0.75)
    if d.side_windows == "three":
        over -= 0.18
    return long_roof * behind + (1 - long_roof) * over


def outline_field(kit: Kit) -> Field:
    """Distance to the border of the whole row of side windows."""
    d, lines = kit.shell.design, kit.shell.lines
    slope = smooth(np.gradient(lines.top, lines.x), 0.06)
    end = row_end(kit)

    def value(soup: Soup) -> Floats:
        """Between belt and roof, from the foot of the windscreen's pillar to the row's end."""
        x, z = soup.uv[:, 0], soup.points[:, 2]
        roof = (lines.at("top", x) - z) / np.sqrt(1 + np.interp(x, lines.x, slope) ** 2) - d.rail - 0.015
        belt = z - lines.at("belt", x) - 0.03
        rear = x - end - (z - d.belt_rear) * (d.kink - 0.25)
        return np.asarray(np.minimum(np.minimum(roof, belt), np.minimum(rear, lines.cowl + 0.05 - x)))

    return value
