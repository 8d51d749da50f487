"""A server that gets many more searches than it can answer, alone or behind nginx: what is measured, and the bars."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import load
from bench.procfs import children, process_cpu_s
from tests.soak.outcome import Figure, at_least, none_of
from tests.soak.regular import Regular
from tests.soak.traffic import statuses
from tests.support.servers import Server

TIMES = 10
CLIENTS = 32
CONNECTIONS = 800
WARM_UP_S = 2.0
PROBE_S, PROBE_PATIENCE_S = 0.1, 3.0
PROBE_LATE_MS, PROBES_IN_TIME = 1000, 0.999
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bars:
    """What is promised: goodput as a share of capacity, and of what CPU time is left for it (None: no promise)."""

    of_capacity: float | None
    of_share: float | None


@dataclass(frozen=True, slots=True)
class Target:
    """Where the searches go: a server's own port, or that of a proxy before it, whose processes are `proxy_pids`.

    Behind a proxy every connection comes from an address of its own, as the proxy limits each address.
    """

    server: Server
    port: int
    proxy_pids: tuple[int, ...] = ()

    def ask(self, photos: Sequence[str], clients: int, seconds: float, rate_per_s: float | None = None) -> "Asked":
        """A closed loop of searches, or an open one at a rate; a warm-up before it does not count as answers."""
        warm_up_s = min(WARM_UP_S, seconds / 2)
        pid = self.server.process.pid
        order = load.Order(
            self.port, clients, seconds, tuple(photos), "/search", rate_per_s, warm_up_s, pid, bool(self.proxy_pids)
        )
        refused, proxy_s, started = self._refused(), self._proxy_s(), time.monotonic()
        done = load.run(order)
        took_s = time.monotonic() - started
        return Asked(done, (self._proxy_s() - proxy_s) / took_s, (self._refused() - refused) / took_s)

    def _refused(self) -> float:
        return statuses(self.server.client).get("429", 0)

    def _proxy_s(self) -> float:
        return sum(process_cpu_s(pid) for master in self.proxy_pids for pid in (master, *children(master)))


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a load, the cores that the proxy took, and how much the server itself refused."""

    load: load.Load
    proxy_cores: float
    server_refused_per_s: float

    @property
    def other_cores(self) -> float:
        """The cores that generator and proxy took."""
        return self.load.cpu_s / self.load.seconds + self.proxy_cores


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a closed loop gets of a server, the cores of generator and proxy, and a refusal's CPU time in the server."""

    rate_per_s: float
    other_cores: float
    refusal_s: float

    def share_left(self, over: Asked) -> float:
        """The CPU time that generator, proxy and refusals leave, as a share of what the closed loop's server had."""
        cores = len(os.sched_getaffinity(0))
        taken = over.other_cores + over.server_refused_per_s * self.refusal_s
        return (cores - taken) / (cores - self.other_cores)

    def and_again(self, later: "Capacity") -> "Capacity":
        """The mean of before and after a crowd: others use the machine too, now more and now less."""
        return Capacity(
            (self.rate_per_s + later.rate_per_s) / 2,
            (self.other_cores + later.other_cores) / 2,
            (self.refusal_s + later.refusal_s) / 2,
        )


def capacity_of(target: Target, full: Target, photos: Sequence[str], seconds: float) -> Capacity:
    """Measures both, one after the other; `full` refuses everything."""
    closed = target.ask(photos, CLIENTS, seconds)
    refused = full.ask(photos, CONNECTIONS, seconds / 2, TIMES * closed.load.rate_per_s).load
    return Capacity(closed.load.rate_per_s, closed.other_cores, refused.server_cpu_s / max(1, refused.refused))


def crowd(target: Target, photos: Sequence[str], capacity: Capacity, seconds: float, say: Say) -> Asked:
    """TIMES as many searches as a server can answer."""
    rate_per_s = TIMES * capacity.rate_per_s
    say(f"{CLIENTS} clients get {capacity.rate_per_s:.0f}/s; {rate_per_s:.0f}/s over {CONNECTIONS} connections")
    return target.ask(photos, CONNECTIONS, seconds, rate_per_s)


def crowd_figures(what: str, capacity: Capacity, over: Asked, bars: Bars) -> list[Figure]:
    """What is promised of a crowd; `what` says of which one."""
    share, done = capacity.share_left(over), over.load
    how = (
        f"{done.rate_per_s:.0f} of {capacity.rate_per_s:.0f} searches/s; generator and proxy took "
        f"{over.other_cores:.2f} cores; of {done.refused / done.seconds:.0f} refusals/s "
        f"{over.server_refused_per_s:.0f} were the server's, {1000 * capacity.refusal_s:.3f} ms each, "
        f"so {share:.2f} was left; "
        f"the server took {done.server_cpu_s / done.seconds:.2f} cores"
    )
    of_capacity = done.rate_per_s / max(1e-9, capacity.rate_per_s)
    refused_ms = [load.percentile(done.refused_ms, percent) for percent in (50, 99)]
    tail = f"p50 {refused_ms[0]:.0f} ms, p99 {refused_ms[1]:.0f} ms; p99 of the 200s {done.percentile_ms(99):.0f} ms"
    figures = []
    if bars.of_capacity is not None:
        figures.append(at_least(f"goodput{what} of capacity", of_capacity, bars.of_capacity, "", how))
    if bars.of_share is not None:
        figures.append(at_least(f"goodput{what} of capacity x CPU left", of_capacity / share, bars.of_share, "", how))
    failed = {status: count for status, count in done.statuses.items() if status not in ("200", "429")}
    whole = done.answered + done.errors
    lost = none_of(f"requests{what} without an answer", done.lost + done.unanswered, whole, "requests")
    refused = Figure(f"refusals{what}", f"{done.refused:,}", "> 0", done.refused > 0, tail)
    return [*figures, none_of(f"answers{what} but 200 and 429", sum(failed.values()), whole, "requests"), lost, refused]


def probe_figure(what: str, probe: Regular) -> Figure:
    """Whoever watches the server must not take it for dead."""
    late = sum(took_ms > PROBE_LATE_MS for took_ms in probe.took_ms)
    asked = max(1, len(probe.statuses))
    kept = probe.failures == 0 and (late == 0 or 1 - late / asked >= PROBES_IN_TIME)
    how = f"of {asked:,} probes; {probe.failures} not answered within {PROBE_PATIENCE_S:g} s"
    slowest = max(probe.took_ms, default=math.nan)
    bar = f"99.9% within {PROBE_LATE_MS} ms, all within {PROBE_PATIENCE_S:g} s"
    name = f"{probe.path}{what} later than {PROBE_LATE_MS} ms"
    return Figure(name, str(late), bar, kept, f"{how}; slowest {slowest:.0f} ms")
