"""Ten times more searches than can be answered, and what else goes on meanwhile: cases 081 to 085 and 091.

The figures for a crowd are promised of a server behind nginx, as docker-compose deploys it; a bare server is safe.
"""

import json
import math
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench import load
from bench.procfs import peak_bytes, reset_peak, resident_bytes
from bench.sizing import publish_made_up
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.demo.gallery import DemoGallery
from service.settings import load_settings
from tests.deploy.nginx import UNLIMITED, compose_values, running_nginx, unchanged
from tests.soak.crowd import (
    CLIENTS,
    PROBE_PATIENCE_S,
    PROBE_S,
    WARM_UP_S,
    Bars,
    Say,
    Target,
    capacity_of,
    crowd,
    crowd_figures,
    probe_figure,
)
from tests.soak.outcome import Extent, Figure, at_least, at_most, none_of
from tests.soak.regular import Regular, asking
from tests.soak.slow_clients import slow_heads, slow_uploads
from tests.soak.traffic import demo_photos, statuses
from tests.support.calls import metric
from tests.support.photos import car_photo, car_pixels, jpeg
from tests.support.servers import Server, running_server

NAME = "overload"
MODEST = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
MODEST_S = 1.0
LONE = 15
GIVE_UP_S = 60
BURST_S = 0.01
LARGE_PHOTO, LARGE_QUALITY = (4000, 3000), 90
LARGE_BARS = Bars(None, 0.75)
"""The bodies alone are hundreds of MB a second then, whoever reads them."""

MOST_ABOVE_REST_MB = 300
SLOW_UPLOADS, OF_GOODPUT = 500, 0.5
EVALUATED = 'carsearch_batch_photos_sum{work="evaluate"}'


@dataclass(frozen=True, slots=True)
class Plan:
    """How long. In small, the promises on time only say that nothing hangs."""

    photos: int
    capacity_s: float
    overload_s: float
    large_s: float
    evaluation_s: float
    burst: int
    slow_s: float
    deployed: Bars
    bare: Bars
    recovered_s: float
    evaluation_times: float
    beside_slow: float


PLANS: dict[Extent, Plan] = {
    "large": Plan(11_046, 20, 60, 30, 30, 1000, 20, Bars(0.6, 0.75), Bars(0.5, None), 5, 1.5, OF_GOODPUT),
    "small": Plan(1_000, 0.7, 2.5, 0, 1, 200, 0, Bars(0.01, 0.01), Bars(0.01, None), 30, 100, 0),
}


def run(extent: Extent, folder: Path, say: Say) -> list[Figure]:
    """All of it, against servers of one index of made-up embeddings."""
    plan = PLANS[extent]
    photos = demo_photos()
    index = IndexDirectory(folder / "index")
    publish_made_up(index, Embedder.load("resnet18", "openvino"), plan.photos)
    with _targets(index.root, folder / "deployed", deployed=True) as (target, full):
        figures = _overload(" behind nginx", target, full, photos, plan.deployed, plan, say)
    with _targets(index.root, folder / "bare", deployed=False) as (target, full):
        before = statuses(target.server.client)  # it has said that it is not ready yet
        figures += _overload(", bare", target, full, photos, plan.bare, plan, say)
        figures += _burst(target.server, folder, plan, say)
        figures += _beside_evaluations(target, photos, plan, say)
        if plan.large_s:
            figures += _large(target, full, _large_photos(folder), plan, say)
        if plan.slow_s:
            figures += _beside_slow_clients(target, photos, plan, say)
        answers = {status: count - before.get(status, 0) for status, count in statuses(target.server.client).items()}
    failures = sum(count for status, count in answers.items() if status.startswith("5"))
    return [*figures, none_of("answers of 5xx, bare", int(failures), int(sum(answers.values())), "answers")]


@contextmanager
def _targets(index: Path, folder: Path, *, deployed: bool) -> Iterator[tuple[Target, Target]]:
    """A server, and one that refuses everything; behind nginx they believe what it says of a client."""
    folder.mkdir()
    settings = {"RUNTIME": "openvino", "DATASETS": json.dumps({"demo": str(DemoGallery.load().photos)})}
    if deployed:
        settings["TRUSTED_PROXIES"] = "127.0.0.1"
    refusing = "tests.soak.full_server"
    with (
        running_server(index, folder / "full.log", True, refusing, **settings) as full,
        running_server(index, folder / "log", True, **settings) as server,
    ):
        if not deployed:
            yield Target(server, server.port), Target(full, full.port)
            return
        limits = {name: compose_values()[name] for name in UNLIMITED}  # an address's, as deployed
        with (
            running_nginx(folder / "nginx-full", [full.port], unchanged, **limits) as before_full,
            running_nginx(folder / "nginx", [server.port], unchanged, **limits) as before,
        ):
            yield (
                Target(server, before.port, (before.process.pid,)),
                Target(full, before_full.port, (before_full.process.pid,)),
            )


def _overload(
    what: str, target: Target, full: Target, photos: Sequence[str], bars: Bars, plan: Plan, say: Say
) -> list[Figure]:
    """The crowd; beside it probes, and clients that ask once a second from other addresses."""
    capacity = capacity_of(target, full, photos, plan.capacity_s)
    lone = Regular(target.port, "/search?k=5", 0, 30, photo=Path(photos[0]).read_bytes())
    before_ms, rest = _lone_ms(lone), resident_bytes(target.server.process.pid)
    probes = [Regular(target.port, path, PROBE_S, PROBE_PATIENCE_S) for path in ("/livez", "/readyz")]
    # Behind nginx the whole crowd is of such clients.
    modest = [Regular(target.port, lone.path, MODEST_S, 10, source, lone.photo) for source in MODEST]
    modest = [] if target.proxy_pids else modest
    sees_peak = reset_peak(target.server.process.pid)
    with asking([*probes, *modest]):
        over = crowd(target, photos, capacity, plan.overload_s, say)
    recovered_s = _recovered_s(lone, 2 * before_ms)
    pid = target.server.process.pid
    above_mb = ((peak_bytes(pid) if sees_peak else resident_bytes(pid)) - rest) / 1e6
    capacity = capacity.and_again(capacity_of(target, full, photos, plan.capacity_s))
    figures = [
        *crowd_figures(what, capacity, over, bars),
        *(probe_figure(what, probe) for probe in probes),
        at_most(f"memory above rest{what}", above_mb, MOST_ABOVE_REST_MB, "MB", "resident, at its peak"),
        at_most(f"recovered after{what}", recovered_s, plan.recovered_s, "s",
                f"a lone search takes no more than twice the {before_ms:.1f} ms of before"),
    ]  # fmt: skip
    if modest:
        asked, failed = sum(len(one.statuses) for one in modest), sum(one.failures for one in modest)
        figures.append(
            at_least(f"answers to clients that ask once a second{what}", 100 * (1 - failed / max(1, asked)), 99, "%",
                     f"of {asked:,}, from other addresses than the crowd's")
        )  # fmt: skip
    return figures


def _lone_ms(lone: Regular) -> float:
    """The median of some searches one after the other."""
    connection = lone.connection()
    lone.took_ms.clear()
    for _ in range(LONE):
        lone.ask(connection)
    connection.close()
    return statistics.median(lone.took_ms)


def _recovered_s(lone: Regular, most_ms: float) -> float:
    """How long after now lone searches are as fast as they should be again; NaN when they never are."""
    started = time.monotonic()
    while time.monotonic() - started < GIVE_UP_S:
        begun = time.monotonic()
        took_ms = _lone_ms(lone)
        if took_ms <= most_ms and set(lone.statuses[-LONE:]) == {200}:
            return begun - started
    return math.nan


def _burst(server: Server, folder: Path, plan: Plan, say: Say) -> list[Figure]:
    """Case 084: all at once, small photos, each over a connection that is there already."""
    say(f"a burst of {plan.burst}")
    small = folder / "small.jpg"
    small.write_bytes(car_photo(1, 0, (256, 192)))
    order = load.Order(server.port, plan.burst, BURST_S, (str(small),), rate_per_s=plan.burst / BURST_S, warm_up_s=0)
    burst = load.run(order)
    slowest_s = max(burst.latencies_ms, default=math.nan) / 1000
    asked = burst.answered + burst.errors
    return [
        at_most("burst: the slowest answer", slowest_s, load_settings().request_deadline_s, "s",
                f"{burst.answered} of {asked:,} in {1000 * BURST_S:.0f} ms are answered"),
        none_of("burst: other answers than 200 and 429, or none", burst.errors - burst.refused, asked, "searches"),
    ]  # fmt: skip


def _beside_evaluations(target: Target, photos: Sequence[str], plan: Plan, say: Say) -> list[Figure]:
    """Case 091: one evaluation after the other while searches take all there is; a second one is refused."""
    say("searches beside evaluations")
    server = target.server
    alone = target.ask(photos, CLIENTS, plan.evaluation_s).load
    stop, first = threading.Event(), list[int]()

    def evaluate() -> None:
        with httpx.Client(base_url=server.url, timeout=300) as client:
            while not stop.is_set():
                first.append(client.post("/evaluate", json={"dataset": "demo"}).status_code)

    before = metric(server, EVALUATED)
    evaluating = threading.Thread(target=evaluate)
    evaluating.start()
    try:
        beside = target.ask(photos, CLIENTS, plan.evaluation_s).load
        done = metric(server, EVALUATED) - before
        second = {server.client.post("/evaluate", json={"dataset": "demo"}).status_code for _ in range(3)}
    finally:
        stop.set()
        evaluating.join()
    how = (
        f"{beside.percentile_ms(99):.0f} and {alone.percentile_ms(99):.0f} ms; {beside.rate_per_s:.0f} and "
        f"{alone.rate_per_s:.0f} searches/s, and {done / (plan.evaluation_s + WARM_UP_S):.0f} photos/s are evaluated"
    )
    times = beside.percentile_ms(99) / alone.percentile_ms(99)
    return [
        at_most("p99 of searches beside an evaluation, of that without", times, plan.evaluation_times, "", how),
        # One of the three may have come between two of the first client's.
        Figure("a second evaluation", str(max(second)), "429", 429 in second and 200 in first and done > 0,
               "the first goes on, and is answered"),
    ]  # fmt: skip


def _large_photos(folder: Path) -> list[str]:
    """A photo of about 5 MB."""
    photo = folder / "large.jpg"
    photo.write_bytes(jpeg(car_pixels(1, 0, LARGE_PHOTO), quality=LARGE_QUALITY))
    return [str(photo)]


def _large(target: Target, full: Target, photos: Sequence[str], plan: Plan, say: Say) -> list[Figure]:
    """Case 083: photos that take long to decode and much memory while they wait. A bare server promises to be safe."""
    say(f"photos of {Path(photos[0]).stat().st_size / 1e6:.1f} MB")
    pid = target.server.process.pid
    capacity = capacity_of(target, full, photos, plan.capacity_s)
    rest = resident_bytes(pid)
    probe = Regular(target.port, "/livez", PROBE_S, PROBE_PATIENCE_S)
    sees_peak = reset_peak(pid)
    with asking([probe]):
        over = crowd(target, photos, capacity, plan.large_s, say)
    above_mb = ((peak_bytes(pid) if sees_peak else resident_bytes(pid)) - rest) / 1e6
    settings = load_settings()
    bound_mb = settings.max_uploads_bytes / 1e6 + MOST_ABOVE_REST_MB
    how = "resident, at its peak; CARSEARCH_MAX_UPLOADS_BYTES and what is decoded"
    what = " of photos of 5 MB"
    return [
        *crowd_figures(what, capacity, over, LARGE_BARS),
        probe_figure(what, probe),
        at_most(f"memory above rest{what}", above_mb, bound_mb, "MB", how),
    ]


def _beside_slow_clients(target: Target, photos: Sequence[str], plan: Plan, say: Say) -> list[Figure]:
    """Uploads at the lowest rate and heads that never end, and what they leave to other clients."""
    say(f"{SLOW_UPLOADS} uploads at the lowest rate")
    alone = target.ask(photos, CLIENTS, plan.slow_s).load
    with slow_uploads(target.port, SLOW_UPLOADS) as uploads:
        beside = target.ask(photos, CLIENTS, plan.slow_s).load
    cut_off, opened = slow_heads(target.port)
    share = beside.rate_per_s / max(1e-9, alone.rate_per_s)
    how = (
        f"{beside.rate_per_s:.0f} and {alone.rate_per_s:.0f} searches/s; {uploads.sent_bytes / 1e6:.0f} MB came slowly"
    )
    return [
        at_least(f"goodput beside {SLOW_UPLOADS} slow uploads, of that without", share, plan.beside_slow, "", how),
        Figure("connections with an endless head that were cut off", str(cut_off), str(opened), cut_off == opened),
    ]
