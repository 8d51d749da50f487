"""Prometheus metrics of one server process; label names and, but for what is served, label values are fixed."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service import __version__
from service.errors import DeadlineExceeded, NotReady, Overloaded
from service.observability.memory import memory_limit_bytes

STAGE_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05,
    0.1, 0.25, 1, 5, 10,
)  # fmt: skip
"""A search takes milliseconds: most buckets lie between a tenth of one and fifty."""

REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)
BATCH_PHOTOS = (1, 2, 4, 8, 16, 32, 64)
WORK_ROUTES = ("/search", "/evaluate")
WATCHED_ERRORS = (Overloaded, DeadlineExceeded, NotReady)
"""With `internal`, what an alert asks for: the first error must show as growth, not as a series that begins at 1."""

STAGES = ("queue", "decode", "forward", "search", "total")


# A time beside every counter and histogram, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package does not say what it takes: nothing


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """What a scrape tells about the index that is being served."""

    version: str
    model: str
    runtime: str
    precision: str
    created_s: float
    photos: int
    classes: int


class _IndexCollector(Collector):
    """Tells of one index as a whole: a scrape in the middle of a swap sees the old one or the new one."""

    def __init__(self) -> None:
        self.served: ServedIndex | None = None

    def collect(self) -> Iterable[Metric]:
        served = self.served
        yield _gauge("carsearch_ready", "1 when the server has an index to answer with", served is not None)
        if served is None:
            return
        about = {name: getattr(served, name) for name in ("version", "model", "runtime", "precision")}
        info = GaugeMetricFamily("carsearch_index_info", "What is served; always 1", labels=list(about))
        info.add_metric(list(about.values()), 1)
        yield info
        yield _gauge("carsearch_index_created_seconds", "When the served index was built, Unix time", served.created_s)
        age_s = time.time() - served.created_s
        yield _gauge("carsearch_index_age_seconds", "Seconds since the served index was built", age_s)
        yield _gauge("carsearch_gallery_photos", "Photos in the served index", served.photos)
        yield _gauge("carsearch_gallery_classes", "Classes in the served index", served.classes)


class Metrics:
    """All metrics, on a registry of their own so that several apps can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._index = _IndexCollector()
        self.registry.register(self._index)
        self._count_requests()
        self._count_work()
        self._count_index()
        limit = self._gauge("carsearch_memory_limit_bytes", "Memory at which the container is killed, or +Inf")
        limit.set(memory_limit_bytes())
        build = self._gauge("carsearch_build_info", "The program's version; always 1", ["version"])
        build.labels(__version__).set(1)

    def _count_requests(self) -> None:
        self.answers = self._counter(
            "carsearch_answers_total", "Answers by route, status and error code", ["route", "status", "code"]
        )
        self.request_seconds = Histogram(
            "carsearch_request_seconds", "From a request's headers to its answer, the upload included", ["route"],
            buckets=REQUEST_SECONDS, registry=self.registry,
        )  # fmt: skip
        for route in WORK_ROUTES:  # a series that is there from the start can be asked how it grew
            self.request_seconds.labels(route)
            self.answers.labels(route, "200", "ok")
            self.answers.labels(route, "500", "internal")
            for error in WATCHED_ERRORS:
                self.answers.labels(route, str(error.status), error.code)
        self.stage_seconds = Histogram(
            "carsearch_search_stage_seconds", "Time of each stage of a search", ["stage"],
            buckets=STAGE_SECONDS, registry=self.registry,
        )  # fmt: skip
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        self.draining = self._gauge("carsearch_draining", "1 after SIGTERM, while requests are still answered")

    def _count_work(self) -> None:
        self.queue_waiting = self._gauge("carsearch_queue_waiting", "Searches and gallery images that wait")
        self.queue_running = self._gauge("carsearch_queue_running", "Searches and gallery images being worked on")
        self.queue_limit = self._gauge("carsearch_queue_limit", "How many may wait before more get 429")
        self.batch_photos = Histogram(
            "carsearch_batch_photos", "Photos embedded together", ["work"],
            buckets=BATCH_PHOTOS, registry=self.registry,
        )  # fmt: skip
        for work in ("search", "evaluate"):
            self.batch_photos.labels(work)
        self.evaluations = self._counter("carsearch_evaluations_total", "Evaluations by how they ended", ["status"])
        for status in ("done", "failed", "cancelled"):
            self.evaluations.labels(status)
        self.evaluation_running = self._gauge("carsearch_evaluation_running", "1 while an evaluation runs")
        self.evaluation_photos = self._gauge("carsearch_evaluation_photos", "Photos of the running evaluation")
        self.evaluation_done = self._gauge("carsearch_evaluation_photos_done", "Of these, embedded so far")

    def _count_index(self) -> None:
        self.swaps = self._counter("carsearch_index_swaps_total", "Index versions switched to")
        self.refusals = self._counter("carsearch_index_refusals_total", "Index versions that did not verify")
        self.refused = self._gauge("carsearch_index_refused", "1 while CURRENT names a version that was refused")

    def _counter(self, name: str, what: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, what, tuple(labels), registry=self.registry)

    def _gauge(self, name: str, what: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, what, tuple(labels), registry=self.registry)

    def serve(self, served: ServedIndex) -> None:
        """Counts a swap and tells from now on of this index."""
        self._index.served = served
        self.swaps.inc()

    @contextmanager
    def evaluating(self, photos: int) -> Iterator[None]:
        """The gauges of an evaluation, which go back to 0 when it ends."""
        self.evaluation_photos.set(photos)
        self.evaluation_running.set(1)
        try:
            yield
        finally:
            for gauge in (self.evaluation_running, self.evaluation_photos, self.evaluation_done):
                gauge.set(0)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=float(value))
