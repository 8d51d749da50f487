"""The report of a performance run: tables for a terminal, and Markdown, JSON and a plot for docs/measured/."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bench.bars import MB, Bar
from bench.limit import Parts, per_second
from bench.performance import Performance
from bench.throughput import PEER, SERVICE, Figure, Throughput
from model.storage import write_durably

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JSON_NAME = "performance.json"
PLOT_NAME = "performance.svg"
DOCUMENT_NAME = "performance.md"
TITLE = (
    "# Performance, as measured\n\nWritten by `python -m bench performance` (`make bench`). "
    "[performance.md](../performance.md) explains the figures."
)

PART_NAMES = ("read + sha256", "decode + fit", "forward", "search", "bare HTTP")
BLUE, ORANGE, GREY = "#1f6fb2", "#c8641e", "#8a8a8a"
PERCENTILES = (("p50_ms", "p50", "-"), ("p95_ms", "p95", "--"), ("p99_ms", "p99", ":"))
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "carsearch",
}

FIGURE_HEADS = (
    *("server", "load", "photos/s", "p50 ms", "p95 ms", "p99 ms", "errors"),
    *("server's core ms", "generator's core ms", "runs"),
)


def write(performance: Performance, folder: Path) -> list[Path]:
    """Writes the JSON, the plot and the Markdown of a run into a folder, and returns the three paths."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path, plot_path, document = (folder / name for name in (JSON_NAME, PLOT_NAME, DOCUMENT_NAME))
    write_durably(json_path, (json.dumps(performance.to_json(), indent=1) + "\n").encode())
    plot(performance.throughput, plot_path)
    write_durably(document, document_of(performance).encode())
    return [json_path, plot_path, document]


def tables_of(performance: Performance) -> list[Table]:
    """The promises, the loads and the parts."""
    measured = performance.throughput
    return [
        _table("promises", ("figure", "value", "bar", "", "made of"), map(_bar_row, performance.bars)),
        _table("over HTTP", FIGURE_HEADS, map(_figure_row, measured.figures)),
        _table("one photo's parts", ("part", "core ms", "ms alone"), _part_rows(measured.capacity, measured.lone)),
    ]


def document_of(performance: Performance) -> str:
    """The Markdown: what was measured on what, the promises, the parts, the loads, the memory."""
    measured, memory = performance.throughput, performance.memory
    versions = ", ".join(f"{name} {version}" for name, version in performance.versions.items())
    about = (
        f"Measured {performance.finished[:10]} in one run of {performance.took_s / 60:.0f} minutes on "
        f"{performance.cores} cores of {performance.machine}: `{performance.model}`, "
        f"{performance.items:,} photos in the gallery, the demo's photos as queries. {versions}."
    )
    capacity = measured.capacity
    in_one_loop_per_s = per_second(measured.in_one_loop_ms + capacity.http_ms)
    limit = (
        f"The limit is {measured.limit_per_s:.1f} photos/s: {performance.cores} cores / "
        f"{capacity.search_over_http_ms:.2f} ms of a core a photo. Decoding, network and search one after the other "
        f"in a loop on each core, without a server, take {measured.in_one_loop_ms:.2f} ms; their sum is "
        f"{capacity.without_http_ms:.2f} ms. With the bare round trip such a loop reaches "
        f"{in_one_loop_per_s / measured.limit_per_s:.2f} of the limit."
    )
    resident = (
        f"Memory of one process: {memory.ready_bytes / MB:.1f} MB when ready, {memory.rest_bytes / MB:.1f} MB at "
        f"rest, {memory.later_bytes / MB:.1f} MB after {memory.requests:,} requests."
    )
    sections = [
        TITLE,
        about,
        _markdown(("figure", "value", "bar", "", "made of"), map(_bar_row, performance.bars)),
        limit,
        _markdown(("part", "core ms", "ms alone"), _part_rows(capacity, measured.lone)),
        f"![Throughput against clients, latency against rate]({PLOT_NAME})",
        _markdown(FIGURE_HEADS, map(_figure_row, measured.figures)),
        resident,
    ]
    return "\n\n".join(sections) + "\n"


def _bar_row(bar: Bar) -> list[str]:
    return [bar.name, f"{bar.value:.2f}{bar.unit}", bar.promise, bar.verdict, bar.how]


def _figure_row(figure: Figure) -> list[str]:
    clients = f"{figure.clients} client{'s' if figure.clients != 1 else ''}"
    return [
        figure.server,
        clients if figure.offered_per_s is None else f"open, {figure.offered_per_s:.1f}/s",
        *(f"{value:.1f}" for value in (figure.rate_per_s, figure.p50_ms, figure.p95_ms, figure.p99_ms)),
        str(figure.errors),
        *(f"{value:.3f}" for value in (figure.server_core_ms, figure.generator_core_ms)),
        str(figure.rounds),
    ]


def _part_rows(capacity: Parts, lone: Parts) -> list[list[str]]:
    columns = [
        (parts.read_ms, parts.prepare_ms, parts.forward_ms, parts.search_ms, parts.http_ms)
        for parts in (capacity, lone)
    ]
    rows = [[name, *(f"{value:.3f}" for value in row)] for name, *row in zip(PART_NAMES, *columns, strict=True)]
    return [*rows, ["a search: all but reading", *(f"{one.search_over_http_ms:.3f}" for one in (capacity, lone))]]


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*heads, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(measured: Throughput, path: Path) -> None:
    """Writes the plot as SVG; the same figures give the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Picture

    with mpl.rc_context(STYLE):
        picture = Picture(figsize=(9, 3.6), layout="constrained", facecolor="white")
        FigureCanvasSVG(picture)
        left, right = picture.subplots(1, 2)
        _throughput(left, measured)
        _latency(right, measured)
        picture.savefig(path, format="svg", metadata={"Date": None})


def _throughput(axes: "Axes", measured: Throughput) -> None:
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


def _latency(axes: "Axes", measured: Throughput) -> None:
    points = sorted(
        (one for one in measured.figures if one.offered_per_s is not None), key=lambda one: one.offered_per_s or 0
    )
    rates = [one.offered_per_s or 0 for one in points]
    for field, label, line in PERCENTILES:
        axes.plot(rates, [getattr(one, field) for one in points], "o", linestyle=line, color=BLUE, label=label)
    axes.set(xlabel="photos/s asked for", ylabel="ms from the intended start", ylim=(0, None), title="Open loop")
    axes.legend(frameon=False)
