"""Throughput and latency over HTTP: the service, a naive peer and the limit of the parts, in turns in one run.

The load of a shared machine changes within minutes, so every round measures all that is compared: the parts, the bare
round trip, the service and the peer, at 32 clients and for a lone one. Figures are medians over the rounds, and ratios
are of these medians. All servers run throughout; those without load are idle.
"""

import http.client
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from bench import load
from bench.limit import Parts, Workload, per_second
from bench.serving import Running, ServerFailed, running_process, running_server
from indexer.versions import IndexDirectory
from service.engine import Engine

CROWD = 32
LONE = 1
CONNECTIONS = 256
"""Connections of an open loop: more than the service queues, so that its refusals are counted."""

SERVICE, PEER, BARE = "service", "peer", "bare"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """Rounds of the comparison, and the seconds of each load, of its warm-up and of each part."""

    rounds: int
    load_s: float
    warm_up_s: float
    part_s: float
    clients: tuple[int, ...]
    fractions: tuple[float, ...]
    """Rates of the open loop, as fractions of what the service answers to 32 clients."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The medians of a load over its rounds. `clients` is None in an open loop, `offered_per_s` in a closed one."""

    server: str
    clients: int | None
    offered_per_s: float | None
    rate_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    answered: int
    errors: int
    server_core_ms: float
    generator_core_ms: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Core times and latencies of the parts, and the loads of service, peer and bare round trip.

    `in_one_loop_ms` is the core time of the parts, without HTTP, one after the other in a loop.
    """

    capacity: Parts
    lone: Parts
    in_one_loop_ms: float
    limit_per_s: float
    figures: list[Figure]

    def closed(self, server: str, clients: int) -> Figure:
        return next(one for one in self.figures if (one.server, one.clients) == (server, clients))

    def open(self, fraction: float) -> Figure:
        """The service at a fraction of what it answers to 32 clients."""
        offered = self.closed(SERVICE, CROWD).rate_per_s * fraction
        return min(
            (one for one in self.figures if one.offered_per_s is not None),
            key=lambda one: abs((one.offered_per_s or 0) - offered),
        )


def measure(index: IndexDirectory, photos: Sequence[Path], effort: Effort, logs: Path, say: Say) -> Throughput:
    """Measures an index; the servers' logs go to the folder `logs`. Raises ServerFailed, LoadFailed."""
    work = Workload(Engine.load(index, runtime="openvino"), photos)
    files = tuple(str(path) for path in photos)
    with _servers(index, work.engine, photos[0], logs) as servers:

        def ask(server: str, clients: int, rate_per_s: float | None = None) -> load.Load:
            running = servers[server]
            return load.run(
                load.Order(
                    port=running.port,
                    clients=clients,
                    seconds=effort.load_s,
                    photos=files,
                    rate_per_s=rate_per_s,
                    warm_up_s=effort.warm_up_s,
                    server_pid=running.pid,
                )
            )

        capacity, lone, loops, loads = _rounds(work, ask, effort, say)
        figures = [_figure(server, clients, None, several) for (server, clients), several in loads.items()]
        others = [clients for clients in effort.clients if clients not in (LONE, CROWD)]
        for clients in others:
            say(f"{clients} clients")
            figures += [_figure(server, clients, None, [ask(server, clients)]) for server in (SERVICE, PEER)]
        rate = next(one.rate_per_s for one in figures if (one.server, one.clients) == (SERVICE, CROWD))
        if not rate:
            raise ServerFailed(f"The service answered nothing to {CROWD} clients; its log says why.")
        for fraction in effort.fractions:
            say(f"open loop at {fraction:.0%}")
            several = [ask(SERVICE, CONNECTIONS, fraction * rate) for _ in range(effort.rounds)]
            figures.append(_figure(SERVICE, None, fraction * rate, several))
    parts = median_parts(capacity)
    limit_per_s = per_second(parts.search_over_http_ms)
    return Throughput(parts, median_parts(lone), statistics.median(loops), limit_per_s, figures)


def _rounds(
    work: Workload, ask: Callable[[str, int], load.Load], effort: Effort, say: Say
) -> tuple[list[Parts], list[Parts], list[float], dict[tuple[str, int], list[load.Load]]]:
    """The rounds of the comparison: core times, latencies, loops, and the loads by server and clients."""
    capacity: list[Parts] = []
    lone: list[Parts] = []
    loops: list[float] = []
    loads: dict[tuple[str, int], list[load.Load]] = {
        (server, clients): [] for server in (SERVICE, PEER, BARE) for clients in (LONE, CROWD)
    }
    for number in range(effort.rounds):
        say(f"round {number + 1} of {effort.rounds}: the parts, the service and the peer")
        for (server, clients), several in loads.items():
            several.append(ask(server, clients))
        capacity.append(work.at_capacity(effort.part_s, loads[BARE, CROWD][-1].core_ms))
        lone.append(work.alone(effort.part_s, loads[BARE, LONE][-1].percentile_ms(50)))
        loops.append(work.in_one_loop_ms(effort.part_s))
    return capacity, lone, loops, loads


@contextmanager
def _servers(index: IndexDirectory, engine: Engine, photo: Path, logs: Path) -> Iterator[dict[str, Running]]:
    version = index.path_of(engine.manifest.id)
    peer = ["bench.peer", "--model", str(engine.embedder.directory), "--version", str(version)]
    with ExitStack() as stack:
        service = stack.enter_context(running_server(index.root, log=logs / "service.log", RUNTIME="openvino"))
        bare = ["bench.bare", "--answer-bytes", str(_answer_bytes(service.port, photo))]
        yield {
            SERVICE: service,
            PEER: stack.enter_context(running_process(module_command(peer), "/openapi.json", logs / "peer.log")),
            BARE: stack.enter_context(running_process(module_command(bare), "/", logs / "bare.log")),
        }


def module_command(command: Sequence[str]) -> list[str]:
    """The command line of one of our modules."""
    return [sys.executable, "-m", *command]


def _answer_bytes(port: int, photo: Path) -> int:
    """Length of a real answer to a photo; raises ServerFailed."""
    head, _, body = load.requests_of("/search", [str(photo)])[0].partition(b"\r\n\r\n")
    lines = (line.partition(": ") for line in head.decode().split("\r\n")[1:])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/search", body, {name: value for name, _, value in lines})
        response = connection.getresponse()
        if response.status != 200:
            raise ServerFailed(f"The server answered a photo with {response.status}.")
        return len(response.read())
    finally:
        connection.close()


def median_parts(several: Sequence[Parts]) -> Parts:
    """The median of each part."""
    return Parts(*(statistics.median(column) for column in zip(*map(astuple, several), strict=True)))


def _figure(server: str, clients: int | None, offered_per_s: float | None, several: Sequence[load.Load]) -> Figure:
    def middle(value: Callable[[load.Load], float]) -> float:
        return statistics.median(map(value, several))

    return Figure(
        server=server,
        clients=clients,
        offered_per_s=offered_per_s,
        rate_per_s=middle(lambda one: one.rate_per_s),
        p50_ms=middle(lambda one: one.percentile_ms(50)),
        p95_ms=middle(lambda one: one.percentile_ms(95)),
        p99_ms=middle(lambda one: one.percentile_ms(99)),
        answered=sum(one.answered for one in several),
        errors=sum(one.errors for one in several),
        server_core_ms=middle(lambda one: one.server_cpu_s / max(1, one.answered) * 1000),
        generator_core_ms=middle(lambda one: one.cpu_s / max(1, one.answered) * 1000),
        rounds=len(several),
    )
