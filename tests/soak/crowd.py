"""A server that is asked for much more than it can answer: how much is asked, by whom, and what came of it."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import load
from tests.soak.outcome import Figure, at_least, at_most, none_of
from tests.soak.regular import Regular
from tests.support.calls import metric
from tests.support.servers import Server

TIMES = 10
CLIENTS = 32
WARM_UP_S = 2.0
REFUSAL_S = 0.1
"""How long a refusal may take; an open loop has as many connections as it needs when each takes so long."""

PROBE_S, PROBE_PATIENCE_S = 0.1, 1.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bars:
    """What is promised of any crowd."""

    of_share: float
    refused_p99_ms: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and what is promised. In small the promises on time only say that nothing hangs."""

    photos: int
    capacity_s: float
    overload_s: float
    large_s: float
    evaluation_s: float
    burst: int
    bars: Bars
    of_capacity: float
    recovered_s: float
    evaluation_times: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a closed loop gets of a server, and what one refusal costs, in seconds of a core.

    The latter is the whole CPU time of a server that refuses everything, when it is asked as often as the crowd asks.
    """

    rate_per_s: float
    generator_cores: float
    refusal_s: float

    def share_left(self, over: load.Load) -> float:
        """Of the CPU time that the closed loop's searches had, what generator and refusals of an overload leave."""
        cores = len(os.sched_getaffinity(0))
        taken = (over.cpu_s + over.refused * self.refusal_s) / over.seconds
        return (cores - taken) / (cores - self.generator_cores)

    def and_again(self, later: "Capacity") -> "Capacity":
        """The mean of before and after a crowd: others use the machine too, now more and now less."""
        return Capacity(
            (self.rate_per_s + later.rate_per_s) / 2,
            (self.generator_cores + later.generator_cores) / 2,
            (self.refusal_s + later.refusal_s) / 2,
        )


def ask(
    server: Server, photos: Sequence[str], clients: int, seconds: float, rate_per_s: float | None = None
) -> load.Load:
    """A closed loop of searches, or an open one at a rate; a warm-up before it does not count."""
    warm_up_s = min(WARM_UP_S, seconds / 2)
    return load.run(
        load.Order(server.port, clients, seconds, tuple(photos), "/search", rate_per_s, warm_up_s, server.process.pid)
    )


def connections_of(server: Server, rate_per_s: float) -> int:
    """What an open loop needs when every place is taken and every refusal takes as long as it may."""
    places = int(metric(server, "carsearch_queue_limit")) + len(os.sched_getaffinity(0))
    return places + math.ceil(rate_per_s * REFUSAL_S)


def capacity_of(server: Server, full: Server, photos: Sequence[str], seconds: float) -> Capacity:
    """Measures both, one after the other; `full` refuses everything."""
    closed = ask(server, photos, CLIENTS, seconds)
    rate_per_s = TIMES * closed.rate_per_s
    refused = ask(full, photos, connections_of(full, rate_per_s), seconds / 2, rate_per_s)
    return Capacity(closed.rate_per_s, closed.cpu_s / closed.seconds, refused.server_cpu_s / max(1, refused.refused))


def crowd(server: Server, photos: Sequence[str], capacity: Capacity, seconds: float, say: Say) -> load.Load:
    """TIMES as many searches as a server can answer."""
    rate_per_s = TIMES * capacity.rate_per_s
    connections = connections_of(server, rate_per_s)
    say(f"{CLIENTS} clients get {capacity.rate_per_s:.0f}/s; {rate_per_s:.0f}/s over {connections} connections")
    return ask(server, photos, connections, seconds, rate_per_s)


def crowd_figures(what: str, capacity: Capacity, over: load.Load, bars: Bars) -> list[Figure]:
    """What is promised of any crowd; `what` says of which."""
    share = capacity.share_left(over)
    how = (
        f"{over.rate_per_s:.0f} of {capacity.rate_per_s:.0f} searches/s; the generator took "
        f"{over.cpu_s / over.seconds:.2f} cores and {over.refused / over.seconds:.0f} refusals/s "
        f"{1000 * capacity.refusal_s:.3f} ms each, so {share:.2f} was left; the server took "
        f"{over.server_cpu_s / over.seconds:.2f} cores"
    )
    whole = over.answered + over.errors
    return [
        at_least(f"goodput{what} of capacity x CPU left",
                 over.rate_per_s / max(1e-9, capacity.rate_per_s * share), bars.of_share, "", how),
        at_most(f"p99 of the 429s{what}", load.percentile(over.refused_ms, 99), bars.refused_p99_ms, "ms",
                f"p50 {load.percentile(over.refused_ms, 50):.0f} ms, p99 of the 200s {over.percentile_ms(99):.0f} ms"),
        none_of(f"requests{what} with another answer than 200 and 429, or none",
                over.errors - over.refused, whole, "requests"),
    ]  # fmt: skip


def probe_figure(probe: Regular) -> Figure:
    """Whoever watches the server must not take it for dead."""
    slowest = f"probes, the slowest after {max(probe.took_ms):.0f} ms"
    return none_of(f"{probe.path} not 200 within {PROBE_PATIENCE_S:g} s", probe.failures, len(probe.statuses), slowest)
