"""A performance run for people: the table of a terminal, and the generated section of docs/performance.md."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from bench.bars import MB, Bar
from bench.limit import Parts, per_second
from bench.performance import PLOT_NAME, Performance
from bench.throughput import Figure

BEGIN = "<!-- measured: begin; `make bench` writes what follows -->"
END = "<!-- measured: end -->"
TITLE = "# Performance\n\n"

PART_NAMES = ("read + sha256", "decode + fit", "forward", "search", "bare HTTP")
FIGURE_HEADS = (
    *("server", "load", "photos/s", "p50 ms", "p95 ms", "p99 ms", "errors"),
    *("server's core ms", "generator's core ms", "runs"),
)


def tables_of(performance: Performance) -> list[Table]:
    """The promises, what the loads gave, and the parts."""
    measured = performance.throughput
    return [
        _table("promises", ("figure", "value", "bar", "", "made of"), map(_bar_row, performance.bars)),
        _table("over HTTP", FIGURE_HEADS, map(_figure_row, measured.figures)),
        _table("one photo's parts", ("part", "core ms", "ms alone"), _part_rows(measured.capacity, measured.lone)),
    ]


def section_of(performance: Performance) -> str:
    """The generated section: on what it was measured, the promises, the loads, the parts, the rest."""
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
        f"The sum of the parts allows {measured.limit_per_s:.1f} photos/s: {performance.cores} cores / "
        f"{capacity.search_over_http_ms:.2f} ms of a core. Decoding, network and search that take turns in a loop "
        f"on each core take {measured.in_one_loop_ms:.2f} ms, where their sum is {capacity.without_http_ms:.2f}; with "
        f"the bare round trip that is {in_one_loop_per_s / measured.limit_per_s:.2f} of the limit."
    )
    resident = (
        f"Memory of one process: {memory.ready_bytes / MB:.1f} MB when ready, {memory.rest_bytes / MB:.1f} MB at "
        f"rest, {memory.later_bytes / MB:.1f} MB after {memory.requests:,} requests."
    )
    return "\n\n".join(
        [
            about,
            _markdown(("figure", "value", "bar", "", "made of"), map(_bar_row, performance.bars)),
            limit,
            _markdown(("part", "core ms", "ms alone"), _part_rows(capacity, measured.lone)),
            f"![Throughput against clients, latency against rate]({PLOT_NAME})",
            _markdown(FIGURE_HEADS, map(_figure_row, measured.figures)),
            resident,
        ]
    )


def replace_section(document: str, section: str, begin: str = BEGIN) -> str:
    """A document with the text between the two markers replaced, or added at its end when it has no markers."""
    marked = f"{begin}\n\n{section}\n\n{END}"
    before, begun, rest = document.partition(begin)
    _, ended, after = rest.partition(END)
    if begun and ended:
        return before + marked + after
    return (document.rstrip("\n") + "\n\n" if document else TITLE) + marked + "\n"


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
