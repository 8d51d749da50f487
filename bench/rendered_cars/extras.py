"""Parts fixed to the body: mirrors, wipers, rails, spoiler, aerial, roof panels, a pickup's bed."""

import numpy as np

from bench.rendered_cars.kit import Kit
from bench.rendered_cars.materials import BED, GLASS, GLOSS_BLACK, PLASTIC, SILVER, Material, paint
from bench.rendered_cars.soup import Floats, Soup, blob, tube


def add_extras(kit: Kit, colour: str) -> None:
    """Adds the parts fixed to the body."""
    lacquer = paint(colour)
    _mirrors(kit, lacquer)
    _wipers(kit)
    _roof(kit)
    _spoiler(kit, lacquer)
    _aerial(kit, lacquer)
    d, lines = kit.shell.design, kit.shell.lines
    if d.bed == "open":

        def within(soup: Soup) -> Floats:
            """Between the bed's walls."""
            x, y = soup.points[:, 0], np.abs(soup.points[:, 1])
            return np.minimum(np.minimum(x - lines.tail - 0.10, lines.base - 0.06 - x), d.width / 2 - 0.15 - y)

        kit.add("bed", BED, kit.patch("top", within, 0.003))


def _mirrors(kit: Kit, lacquer: Material) -> None:
    """A mirror on each door."""
    d, lines = kit.shell.design, kit.shell.lines
    x = lines.cowl - 0.30 - 0.25 * max(0.0, 0.3 - d.dash)
    belt = float(lines.at("belt", x))
    size = d.mirror_size * (1.12 + 0.5 * (d.height - 1.5))
    y = float(lines.at("half", x)) - d.bulge + 0.10
    z = belt + 0.075 * size
    kit.stick("trim", GLOSS_BLACK, blob((x + 0.01, y - 0.09, belt + 0.03), (0.07, 0.14, 0.035), 0.7, 6, 8))
    shell = {"paint": lacquer, "black": GLOSS_BLACK, "two_tone": lacquer}[d.mirror]
    kit.stick("mirror", shell, blob((x, y, z), (0.115 * size, 0.215 * size, 0.135 * size), 0.62))
    if d.mirror == "two_tone":
        kit.stick("trim", GLOSS_BLACK, blob((x, y, z - 0.03 * size), (0.12 * size, 0.22 * size, 0.085 * size), 0.62))
    kit.stick("glass", GLASS, blob((x - 0.048 * size, y, z), (0.03, 0.18 * size, 0.105 * size), 0.6, 6, 10))


def _wipers(kit: Kit) -> None:
    """Two wipers at rest, and one behind where the rear is steep."""
    d = kit.shell.design
    base = d.cowl_z + 0.01
    for start, end in (((-0.52, base), (0.02, base + 0.055)), ((0.0, base + 0.01), (0.56, base + 0.05))):
        kit.add("wiper", PLASTIC, kit.ribbon("screen", [start, end], 0.020, 0.012))
    if d.deck < 0.2 and d.back_run < 0.6:
        z = d.deck_z + 0.06
        kit.add("wiper", PLASTIC, kit.ribbon("back", [(0.0, z), (0.34, z + 0.05)], 0.022, 0.012))


def _roof(kit: Kit) -> None:
    """A dark roof or a glass one, and rails."""
    d, lines = kit.shell.design, kit.shell.lines
    if d.roof != "paint":
        margin = 0.015 if d.roof == "black" else 0.14

        def panel(soup: Soup) -> Floats:
            """Within the roof's edges."""
            x, y, z = soup.uv[:, 0], np.abs(soup.points[:, 1]), soup.points[:, 2]
            ends = np.minimum(x - lines.roof_end - margin, lines.header - 0.03 - margin - x)
            return np.minimum(ends, kit.shell.cabin_half(x, z) - 0.06 - margin - y)

        kit.add("roof", GLOSS_BLACK if d.roof == "black" else GLASS, kit.patch("top", panel, 0.003))
    if d.rails != "none":
        x = np.linspace(lines.roof_end + 0.10, lines.header - 0.22, 12)
        y = kit.shell.cabin_half(x, lines.at("top", x) - 0.05) - 0.11
        points, _, covered = kit.locate("top", x, y)
        rise = 0.042 * np.sin(np.linspace(0, np.pi, 12)) ** 0.35
        path = (points + np.stack([np.zeros(12), np.zeros(12), rise], -1))[covered]
        if len(path) > 2:
            kit.stick("rails", SILVER if d.rails == "silver" else PLASTIC, tube(path, 0.017))


def _spoiler(kit: Kit, lacquer: Material) -> None:
    """A lip on the boot, or a wing over the rear window."""
    d, lines = kit.shell.design, kit.shell.lines
    if d.spoiler == "lip" and d.deck > 0.15:
        y = np.linspace(-0.72, 0.72, 15) * d.width / 2
        x = lines.tail + d.tail_round + 0.03 + d.tail_plan * np.abs(y / (d.width / 2)) ** 2.4 + d.tail_rake
        points, _, covered = kit.locate("top", x, np.abs(y))
        points[:, 1] *= np.sign(y) * np.sign(points[:, 1] + 1e-9)
        path = points[covered] + np.array([0.0, 0.0, 0.012])
        if len(path) > 2:
            kit.add("spoiler", lacquer, tube(path, 0.024, 8))
    if d.spoiler == "roof" and d.deck < 0.3:
        z = float(lines.at("top", lines.roof_end + 0.04))
        half = float(kit.shell.cabin_half(np.array([lines.roof_end]), np.array([z - 0.05]))[0]) - 0.06
        wing = blob((lines.roof_end - 0.02, 0.0, z - 0.016), (0.24, 1.84 * half, 0.045), 0.4, 8, 28)
        # Its ends come down with the roof's sides.
        wing.points[:, 2] -= 0.055 * (np.abs(wing.points[:, 1]) / half) ** 2.5
        kit.add("spoiler", lacquer, wing)


def _aerial(kit: Kit, lacquer: Material) -> None:
    """A fin or a rod on the roof."""
    d, lines = kit.shell.design, kit.shell.lines
    x = lines.roof_end + 0.16
    z = float(lines.at("top", x))
    if d.antenna == "fin":
        kit.add("aerial", lacquer, blob((x, 0.0, z + 0.015), (0.15, 0.04, 0.09), 0.9, 7, 10))
    if d.antenna == "rod":
        foot = np.array([x + 0.05, 0.0, z])
        kit.add("aerial", PLASTIC, tube(np.stack([foot, foot + np.array([-0.15, 0.0, 0.18])]), 0.006, 5))
