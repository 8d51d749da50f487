"""Mixed and hostile traffic for a long time: memory does not grow, nothing fails, and a planted leak is found."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import load
from bench.sizing import publish_made_up
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from tests.soak.leaking_server import VARIABLE
from tests.soak.memory import Growth, growth_of
from tests.soak.outcome import Extent, Figure, at_most, none_of
from tests.soak.traffic import Hostile, Met, besides, demo_photos, statuses
from tests.support.bodies import zip_of
from tests.support.calls import at_work, eventually
from tests.support.photos import car_photo
from tests.support.servers import Server, running_server

NAME = "soak"
LOAD, HOSTILE = 0.5, 0.2
"""Of what the server can answer, and of what it is sent."""

CLIENTS, CONNECTIONS = 32, 64
LEAST_PER_S = 20
"""Taken for the capacity where a short measurement beside other work saw next to nothing."""

ABOVE_MEAN_BYTES = 50_000_000
POOLED = 4
"""Threads and files that pools may still grow by, up to their sizes."""

SETTLE_S = 15
"""Connections that were cut off are noticed, and idle ones closed, after some seconds."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and which growth is none. In small the leak is planted as much larger as the time is shorter.

    Heaps settle for some minutes: the rarest of the hostile requests makes its hole but once in a while.
    """

    photos: int
    capacity_s: float
    warm_up_s: float
    seconds: float
    leaking_warm_up_s: float
    leaking_s: float
    swap_s: float
    evaluate_s: float
    sample_s: float
    bytes_an_answer: int
    leaked_bytes: int


PLANS: dict[Extent, Plan] = {
    "large": Plan(5_000, 5, 300, 600, 100, 120, 3, 10, 1, 200, 2048),
    "small": Plan(500, 0.5, 2, 3, 2, 2, 0.7, 1.2, 0.1, 192 << 10, 512 << 10),
}


def run(extent: Extent, folder: Path, say: Say) -> list[Figure]:
    """The soak, and a shorter one of a server that leaks."""
    plan = PLANS[extent]
    index, embedder = IndexDirectory(folder / "index"), Embedder.load("resnet18", "openvino")
    for _ in range(2):
        publish_made_up(index, embedder, plan.photos)
    hostile = Hostile(laborious=extent == "large")
    say("the soak")
    with running_server(index.root, folder / "log", RUNTIME="openvino") as server:
        figures = _soak(server, index, hostile, plan, say)
    say("the same of a server that leaks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(plan.leaked_bytes))
        leaking = "tests.soak.leaking_server"
        with running_server(index.root, folder / "leaking.log", module=leaking, RUNTIME="openvino") as server:
            _mixed(server, index, hostile, plan, plan.leaking_warm_up_s, warm=True)
            planted = _mixed(server, index, hostile, plan, plan.leaking_s)
    growth = growth_of(planted.met.samples)
    found = growth.leaks(plan.bytes_an_answer, ABOVE_MEAN_BYTES)
    how = f"{_interval(growth)} in {plan.leaking_s:g} s, after {plan.leaking_warm_up_s:g} s, by the same rule"
    return [*figures, Figure(f"a leak of {plan.leaked_bytes:,} bytes an answer", _word(found), _word(True), found, how)]


@dataclass(frozen=True, slots=True)
class Mixed:
    """Searches in an open loop, and what there was beside them."""

    searches: load.Load
    met: Met


def _soak(server: Server, index: IndexDirectory, hostile: Hostile, plan: Plan, say: Say) -> list[Figure]:
    _mixed(server, index, hostile, plan, plan.warm_up_s, warm=True)
    before = _held(server, (0, 0), settle_s=1)
    say(f"warmed up: {before[0]} threads, {before[1]} open files")
    told = statuses(server.client)
    mixed = _mixed(server, index, hostile, plan, plan.seconds)
    after = _held(server, before, SETTLE_S)
    answers = {status: count - told.get(status, 0) for status, count in statuses(server.client).items()}
    failures = int(sum(count for status, count in answers.items() if status.startswith("5")))
    searches, met = mixed.searches, mixed.met
    growth = growth_of(met.samples)
    others = ", ".join(f"{count:,} {status}" for status, count in sorted(met.hostile.items()))
    requests = searches.answered + searches.errors
    failed = {status: count for status, count in searches.statuses.items() if status != "200"}
    how = (
        f"searches, {requests / plan.seconds:.0f}/s, p99 {searches.percentile_ms(99):.0f} ms; {searches.lost} lost, "
        f"{failed or 'none'} refused; {searches.asked_again} asked again as their idle connection was just closed"
    )
    return [
        none_of("answers of 5xx", failures, int(sum(answers.values())), "answers"),
        none_of("searches without an answer of 200", searches.errors, requests, how),
        Figure("hostile requests", f"{met.hostile.total():,}", "> 0", bool(met.hostile), others),
        none_of("what the traffic itself could not do", len(met.problems), met.swaps + met.evaluations.total(),
                f"swaps ({met.swaps:,}) and evaluations ({met.evaluations['200']:,} answered); {met.problems[:1]}"),
        Figure("growth of memory", _interval(growth), f"includes 0, or < {plan.bytes_an_answer:,}",
               not growth.leaks(plan.bytes_an_answer, float("inf")),
               f"95% interval over {len(met.samples):,} samples, after a warm-up of {plan.warm_up_s:g} s"),
        at_most("memory: the most above the mean", growth.above_mean_bytes / 1e6, ABOVE_MEAN_BYTES / 1e6, "MB"),
        at_most("threads more than after the warm-up", after[0] - before[0], POOLED, "", f"{after[0]} in the end"),
        at_most("open files more than after the warm-up", after[1] - before[1], POOLED, "", f"{after[1]} in the end"),
    ]  # fmt: skip


def _mixed(
    server: Server, index: IndexDirectory, hostile: Hostile, plan: Plan, seconds: float, warm: bool = False
) -> Mixed:
    """LOAD of what a server can answer, HOSTILE of it hostile, for some seconds."""
    photos = tuple(demo_photos())
    capacity = load.run(load.Order(server.port, CLIENTS, plan.capacity_s, photos, warm_up_s=plan.capacity_s / 2))
    if warm:
        _fill_pools(server)
    per_s = LOAD * max(capacity.rate_per_s, LEAST_PER_S)
    pause_s = (plan.swap_s, plan.evaluate_s, plan.sample_s)
    with besides(server, index, hostile, HOSTILE * per_s, *pause_s) as met:
        searches = load.run(
            load.Order(server.port, CONNECTIONS, seconds, photos, rate_per_s=(1 - HOSTILE) * per_s, warm_up_s=0)
        )
    return Mixed(searches, met)


def _fill_pools(server: Server) -> None:
    """Pools of threads grow with their first uses."""
    photos = zip_of({f"{kind}/{shot}.jpg": car_photo(kind, shot) for kind in range(2) for shot in range(2)})
    for _ in range(8):
        server.client.post("/evaluate", files={"archive": photos})


def _held(server: Server, most: tuple[int, int], settle_s: float) -> tuple[int, int]:
    """Threads and open files of a server that rests, once they are no more than `most`, or after some seconds."""
    eventually(lambda: at_work(server) == 0, "nothing is worked on")
    process, deadline = Path(f"/proc/{server.process.pid}"), time.monotonic() + settle_s
    while True:
        threads, files = len(os.listdir(process / "task")), len(os.listdir(process / "fd"))
        if (threads <= most[0] and files <= most[1]) or time.monotonic() > deadline:
            return threads, files
        time.sleep(0.1)


def _interval(growth: Growth) -> str:
    return f"{growth.low:,.0f} .. {growth.high:,.0f} bytes an answer"


def _word(found: bool) -> str:
    return "found" if found else "not found"
