"""Many more searches than can be answered, and what else goes on meanwhile: cases 081, 082, 083, 084, 085, 091."""

import json
import math
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from bench import load
from bench.procfs import peak_bytes, reset_peak, resident_bytes
from bench.sizing import publish_made_up
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.demo.gallery import DemoGallery
from service.settings import load_settings
from tests.soak.crowd import (
    CLIENTS,
    PROBE_PATIENCE_S,
    PROBE_S,
    REFUSAL_S,
    TIMES,
    WARM_UP_S,
    Bars,
    Plan,
    Say,
    ask,
    capacity_of,
    crowd,
    crowd_figures,
    probe_figure,
)
from tests.soak.outcome import Extent, Figure, at_least, at_most, none_of
from tests.soak.regular import Regular, asking
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
DECODED_BYTES = 100 << 20
"""More than a thread ever holds of a photo of that size."""

EVALUATED = 'carsearch_batch_photos_sum{work="evaluate"}'

PLANS: dict[Extent, Plan] = {
    "large": Plan(11_046, 20, 60, 60, 30, 1000, Bars(0.9, 1000 * REFUSAL_S), 0.75, 5, 1.5),
    "small": Plan(1_000, 0.7, 2.5, 0, 1, 200, Bars(0.01, 10_000), 0.01, 30, 100),
}


def run(extent: Extent, folder: Path, say: Say) -> list[Figure]:
    """All of it, against servers of one index of made-up embeddings."""
    plan = PLANS[extent]
    photos = demo_photos()
    index = IndexDirectory(folder / "index")
    publish_made_up(index, Embedder.load("resnet18", "openvino"), plan.photos)
    settings = {"RUNTIME": "openvino", "DATASETS": json.dumps({"demo": str(DemoGallery.load().photos)})}
    refusing = "tests.soak.full_server"
    with (
        running_server(index.root, folder / "full.log", module=refusing, RUNTIME="openvino") as full,
        running_server(index.root, folder / "log", True, **settings) as server,
    ):
        before = statuses(server.client)  # it has said that it is not ready yet
        figures = _overload(server, full, photos, plan, say)
        figures += _burst(server, folder, plan, say)
        figures += _beside_evaluations(server, photos, plan, say)
        if plan.large_s:
            figures += _large(server, full, _large_photos(folder), plan, say)
        answers = {status: count - before.get(status, 0) for status, count in statuses(server.client).items()}
    failures = sum(count for status, count in answers.items() if status.startswith("5"))
    return [*figures, none_of("answers of 5xx", int(failures), int(sum(answers.values())), "answers to all of these")]


def _overload(server: Server, full: Server, photos: Sequence[str], plan: Plan, say: Say) -> list[Figure]:
    """TIMES as many as it can answer; beside them probes, and clients that ask once a second from elsewhere."""
    capacity = capacity_of(server, full, photos, plan.capacity_s)
    lone = Regular(server.port, "/search?k=5", 0, 30, photo=Path(photos[0]).read_bytes())
    before_ms = _lone_ms(lone)
    probes = [Regular(server.port, path, PROBE_S, PROBE_PATIENCE_S) for path in ("/livez", "/readyz")]
    modest = [Regular(server.port, lone.path, MODEST_S, 10, source, lone.photo) for source in MODEST]
    with asking([*probes, *modest]):
        over = crowd(server, photos, capacity, plan.overload_s, say)
    recovered_s = _recovered_s(lone, 2 * before_ms)
    capacity = capacity.and_again(capacity_of(server, full, photos, plan.capacity_s))
    asked, failed = sum(len(one.statuses) for one in modest), sum(one.failures for one in modest)
    of_capacity = over.rate_per_s / capacity.rate_per_s
    return [
        at_least("goodput of capacity", of_capacity, plan.of_capacity, "", f"{TIMES} times it for {over.seconds:g} s"),
        *crowd_figures("", capacity, over, plan.bars),
        *(probe_figure(probe) for probe in probes),
        at_least("answers to clients that ask once a second", 100 * (1 - failed / max(1, asked)), 99, "%",
                 f"of {asked:,}, from other addresses than the crowd's"),
        at_most("recovered after", recovered_s, plan.recovered_s, "s",
                f"a lone search takes no more than twice the {before_ms:.1f} ms of before"),
    ]  # fmt: skip


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


def _beside_evaluations(server: Server, photos: Sequence[str], plan: Plan, say: Say) -> list[Figure]:
    """Case 091: one evaluation after the other while searches take all there is; a second one is refused."""
    say("searches beside evaluations")
    alone = ask(server, photos, CLIENTS, plan.evaluation_s)
    stop, first = threading.Event(), list[int]()

    def evaluate() -> None:
        with httpx.Client(base_url=server.url, timeout=300) as client:
            while not stop.is_set():
                first.append(client.post("/evaluate", json={"dataset": "demo"}).status_code)

    before = metric(server, EVALUATED)
    evaluating = threading.Thread(target=evaluate)
    evaluating.start()
    try:
        beside = ask(server, photos, CLIENTS, plan.evaluation_s)
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


def _large(server: Server, full: Server, photos: Sequence[str], plan: Plan, say: Say) -> list[Figure]:
    """Case 083: photos that take long to decode and much memory while they wait.

    Ten times what can be answered of these would be a gigabyte a second, nearly all of it for nothing.
    """
    say(f"photos of {Path(photos[0]).stat().st_size / 1e6:.1f} MB")
    capacity = capacity_of(server, full, photos, plan.capacity_s)
    pid = server.process.pid
    rest = resident_bytes(pid)
    probe = Regular(server.port, "/livez", PROBE_S, PROBE_PATIENCE_S)
    sees_peak = reset_peak(pid)
    with asking([probe]):
        over = crowd(server, photos, capacity, plan.large_s, say)
    peak = peak_bytes(pid) if sees_peak else resident_bytes(pid)
    capacity = capacity.and_again(capacity_of(server, full, photos, plan.capacity_s))
    settings = load_settings()
    bound = settings.max_uploads_bytes + settings.search_threads * DECODED_BYTES
    how = "resident; uploads may take CARSEARCH_MAX_UPLOADS_BYTES, and each thread its photo"
    return [
        *crowd_figures(" of photos of 5 MB", capacity, over, plan.bars),
        probe_figure(probe),
        at_most("memory above rest", (peak - rest) / 1e6, bound / 1e6, "MB", how),
    ]
