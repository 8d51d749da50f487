"""The plot of a performance run: throughput against clients, latency against the rate of an open loop."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Picture

from bench.throughput import PEER, SERVICE, Throughput

BLUE, ORANGE, GREY = "#1f6fb2", "#c8641e", "#8a8a8a"
PERCENTILES = (("p50_ms", "p50", "-"), ("p95_ms", "p95", "--"), ("p99_ms", "p99", ":"))
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "carsearch",
}


def plot(measured: Throughput, path: Path) -> None:
    """Writes the picture as SVG; the same figures give the same bytes."""
    with mpl.rc_context(STYLE):
        picture = Picture(figsize=(9, 3.6), layout="constrained", facecolor="white")
        FigureCanvasSVG(picture)
        left, right = picture.subplots(1, 2)
        _throughput(left, measured)
        _latency(right, measured)
        picture.savefig(path, format="svg", metadata={"Date": None})


def _throughput(axes: Axes, measured: Throughput) -> None:
    counts: set[int] = set()
    for server, label, colour in ((SERVICE, "carsearch", BLUE), (PEER, "naive peer", ORANGE)):
        points = sorted(
            (one.clients, one.rate_per_s) for one in measured.figures if one.server == server and one.clients
        )
        clients, rates = [count for count, _ in points], [rate for _, rate in points]
        counts.update(clients)
        axes.plot(clients, rates, "o-", color=colour, label=label)
    axes.axhline(measured.limit_per_s, color=GREY, linestyle="--", label="limit: sum of the parts")
    axes.set(
        xscale="log", xlabel="clients", ylabel="photos/s", ylim=(0, 1.2 * measured.limit_per_s), title="Closed loop"
    )
    axes.set_xticks(sorted(counts), [str(count) for count in sorted(counts)])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="upper center", ncols=3, fontsize=8)


def _latency(axes: Axes, measured: Throughput) -> None:
    points = sorted(
        (one for one in measured.figures if one.offered_per_s is not None), key=lambda one: one.offered_per_s or 0
    )
    rates = [one.offered_per_s or 0 for one in points]
    for field, label, line in PERCENTILES:
        axes.plot(rates, [getattr(one, field) for one in points], "o", linestyle=line, color=BLUE, label=label)
    axes.set(xlabel="photos/s asked for", ylabel="ms from the intended start", ylim=(0, None), title="Open loop")
    axes.legend(frameon=False)
