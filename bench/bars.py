"""The promises about speed and memory, and whether a run keeps them."""

from dataclasses import dataclass

from bench.resources import Bulk, Memory, Start
from bench.throughput import CROWD, LONE, PEER, SERVICE, Throughput

CAPACITY_FRACTION = 0.7
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise: `value` must be at least `least`, or at most `most`. `how` names the figures behind the value."""

    name: str
    value: float
    least: float | None
    most: float | None
    unit: str
    how: str

    @property
    def kept(self) -> bool:
        """Whether the promise holds; a value that is NaN breaks it."""
        return self.value >= self.least if self.least is not None else self.value <= (self.most or 0.0)

    @property
    def verdict(self) -> str:
        return "PASS" if self.kept else "MISS"

    @property
    def promise(self) -> str:
        """The bar with its unit."""
        return f">= {self.least:g}{self.unit}" if self.least is not None else f"<= {self.most:g}{self.unit}"


def at_least(name: str, value: float, bar: float, unit: str, how: str) -> Bar:
    return Bar(name, value, bar, None, unit, how)


def at_most(name: str, value: float, bar: float, unit: str, how: str) -> Bar:
    return Bar(name, value, None, bar, unit, how)


def bars_of(throughput: Throughput, bulk: Bulk, start: Start, memory: Memory) -> list[Bar]:
    """Every promise with its figure."""
    return [*_speed_bars(throughput), *_bulk_bars(bulk), *_resource_bars(start, memory)]


def _speed_bars(measured: Throughput) -> list[Bar]:
    crowd, lone = measured.closed(SERVICE, CROWD), measured.closed(SERVICE, LONE)
    peer = measured.closed(PEER, CROWD)
    parts_ms = measured.lone.search_over_http_ms
    busy = measured.open(CAPACITY_FRACTION)
    rate = crowd.rate_per_s
    return [
        at_least(
            f"throughput at {CROWD} clients / limit",
            rate / measured.limit_per_s,
            0.85,
            "",
            f"{rate:.1f} / {measured.limit_per_s:.1f} photos/s",
        ),
        at_least(
            f"throughput at {CROWD} clients / naive peer",
            rate / peer.rate_per_s if peer.rate_per_s else float("nan"),
            4.0,
            "",
            f"{rate:.1f} / {peer.rate_per_s:.1f} photos/s",
        ),
        at_most(
            "p50 of a lone client / its parts",
            lone.p50_ms / parts_ms,
            1.3,
            "",
            f"{lone.p50_ms:.2f} / {parts_ms:.2f} ms",
        ),
        at_most(
            f"p99 at {CAPACITY_FRACTION:.0%} of capacity / p50 of a lone client",
            busy.p99_ms / lone.p50_ms,
            4.0,
            "",
            f"{busy.p99_ms:.2f} / {lone.p50_ms:.2f} ms",
        ),
        at_most(
            "errors in all these loads of the service",
            sum(one.errors for one in (crowd, lone, busy)),
            0,
            "",
            f"of {sum(one.answered + one.errors for one in (crowd, lone, busy))} requests",
        ),
    ]


def _bulk_bars(bulk: Bulk) -> list[Bar]:
    pairs = (
        ("index building / limit", bulk.indexing_per_s, bulk.indexing_limit_per_s),
        ("evaluation / limit", bulk.evaluation_per_s, bulk.evaluation_limit_per_s),
    )
    return [
        at_least(name, rate / limit, 0.9, "", f"{rate:.1f} / {limit:.1f} photos/s, {bulk.photos:,} photos")
        for name, rate, limit in pairs
    ]


def _resource_bars(start: Start, memory: Memory) -> list[Bar]:
    rest = memory.rest_bytes / MB
    return [
        at_most(
            "start to ready, warm cache", start.warm_cache_s, 3.0, " s", f"empty cache {start.empty_cache_s:.2f} s"
        ),
        at_most("memory at rest", rest, 450, " MB", f"{memory.ready_bytes / MB:.1f} MB when ready"),
        at_most(
            f"growth over {memory.requests:,} requests",
            100 * memory.growth,
            5,
            "%",
            f"{rest:.1f} to {memory.later_bytes / MB:.1f} MB, {memory.errors} errors",
        ),
        at_most(
            "peak of a swap beyond rest and the index",
            memory.swap_extra_bytes / MB,
            50,
            " MB",
            f"{memory.swap_peak_bytes / MB:.1f} MB, of it {memory.later_bytes / MB:.1f} at rest "
            f"and {memory.index_bytes / MB:.1f} index",
        ),
    ]
