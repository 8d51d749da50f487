"""Plots of a report as SVG that needs nothing from elsewhere; its colours are those of the page around it."""

from collections.abc import Callable, Sequence
from itertools import starmap

import numpy as np
import pysvgchart
from markupsafe import Markup

from indexer.benchmark.projection import Points
from indexer.calibration import Reliability, Right
from indexer.class_weights import Values

WIDTH, HEIGHT = 560, 320
MARGIN = 52
MAP_WIDTH, MAP_HEIGHT = 1000, 640
CURVE_POINTS = 100
"""Of precision against coverage."""


def recall_curve(recall: Sequence[tuple[int, float]]) -> Markup:
    """The share of queries with a photo of their class among the first k: pairs of k and share, two at least."""
    ranks, shares = zip(*recall, strict=True)
    return _lines(
        ranks,
        {"measured": shares},
        "nearest photos looked at",
        "with the right class",
        x_range=(1, ranks[-1]),
        x_label=lambda rank: f"{rank:g}",
        x_ticks=11,
        label="Recall: the share of photos with one of their class among their nearest ones",
    )


def reliability_diagram(found: Reliability) -> Markup | None:
    """How often decisions with such probabilities are right; None where they are all in one bin."""
    bins = [one for one in found.bins if one.right is not None]
    middles = [(one.low + one.high) / 2 for one in bins]
    if len(bins) < 2:
        return None
    return _lines(
        middles,
        {"ideal": middles, "measured": [one.right or 0.0 for one in bins]},
        "probability that was told",
        "decisions that are right",
        x_range=(0, 1),
        label="Reliability: how often decisions are right, by the probability that was told",
    )


def precision_against_coverage(probabilities: Values, right: Right, threshold: float) -> Markup | None:
    """How often decisions are right when only the surest are made: probabilities (n,), right bool (n,).

    A line stands at the coverage of `threshold`. None for fewer than two decisions.
    """
    if len(right) < 2:
        return None
    kept = right[np.argsort(-probabilities, kind="stable")].cumsum() / np.arange(1, len(right) + 1)
    # With equal probabilities the order is that of the set; the first hundredth jumps from photo to photo.
    counts = np.unique(np.linspace(max(1, len(right) // CURVE_POINTS), len(right), CURVE_POINTS).astype(int))
    return _lines(
        (counts / len(right)).tolist(),
        {"measured": kept[counts - 1].tolist()},
        "photos whose class is named",
        "named rightly",
        x_range=(0, 1),
        label="Precision against coverage: how often a named class is right, by how many photos have one",
        marked=float((probabilities >= threshold).mean()),
    )


def embedding_map(points: Points, groups: Sequence[Right]) -> Markup:
    """Points (m, 2) from 0 to 1, in groups bool (m,) that are drawn one over the other, each in a colour of its own."""
    places = np.round(10 + points * (MAP_WIDTH - 20, MAP_HEIGHT - 20)).astype(int)
    paths = [
        f'<path class="group-{number}" d="{"".join(starmap("M{} {}h0".format, places[group].tolist()))}"/>'
        for number, group in enumerate(groups)
    ]
    drawing = f'<svg viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" class="map">{"".join(paths)}</svg>'
    return _labelled(drawing, "Map of the photos: those that look alike to the model lie close together")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _lines(
    x_values: Sequence[float],
    lines: dict[str, Sequence[float]],
    x_title: str,
    y_title: str,
    *,
    x_range: tuple[float, float],
    label: str,
    x_label: Callable[[float], str] = _percent,
    x_ticks: int = 6,
    marked: float | None = None,
) -> Markup:
    """Shares over x, each line with the CSS class that names it; `marked` is an x with a line from bottom to top.

    The y-axis begins below the lowest share, so that small differences show.
    """
    lowest = min(min(shares) for shares in lines.values())
    chart = pysvgchart.LineChart(
        x_values=list(x_values),
        y_values=[list(shares) for shares in lines.values()],
        y_names=list(lines),
        x_min=x_range[0],
        x_max=x_range[1],
        y_min=min(float(np.floor(10 * lowest) / 10), 0.9),
        y_max=1.0,
        x_max_ticks=x_ticks,
        y_max_ticks=6,
        x_label_format=x_label,
        y_label_format=_percent,
        x_axis_title=x_title,
        y_axis_title=y_title,
        y_axis_title_offset=58,
        left_margin=78,
        right_margin=24,
        y_margin=MARGIN,
        width=WIDTH,
        height=HEIGHT,
    )
    chart.add_x_grid()
    for name, series in chart.series.items():
        series.styles, series.classes = {}, ["line", name]
    if marked is not None:
        (place,) = chart.x_axis.get_positions([marked])
        chart.add_custom_element(pysvgchart.Line(place, MARGIN, x2=place, y2=HEIGHT - MARGIN, classes=["mark"]))
    shapes = chart.render(include_default=False).partition(">")[2]  # the space above the plot is cut off
    return _labelled(f'<svg viewBox="0 {MARGIN - 12} {WIDTH} {HEIGHT - MARGIN + 12}">{shapes}', label)


def _labelled(drawing: str, label: str) -> Markup:
    """A drawing of numbers and of this module's own words, with what it shows for those who do not see it."""
    return Markup(drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))  # noqa: S704
