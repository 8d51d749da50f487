"""Prometheus metrics of one server process; label names and, but for what is served, label values are fixed."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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

from indexer.manifest import Manifest
from indexer.memory import memory_limit_bytes
from model.runtimes.base import Runtime
from service import __version__
from service.errors import DeadlineExceeded, NotReady, Overloaded

STAGE_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05,
    0.1, 0.25, 1, 5, 10,
)  # fmt: skip
"""A search takes milliseconds: most buckets lie between a tenth of one and fifty."""

REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)
BATCH_PHOTOS = (1, 2, 4, 8, 16, 32, 64)
WORK_ROUTES = ("/search", "/search/batch", "/evaluate")
WATCHED = (
    ("200", "ok"),
    ("500", "internal"),
    *((str(e.status), e.code) for e in (Overloaded, DeadlineExceeded, NotReady)),
)
"""What an alert asks for: the first error must show as growth, not as a series that begins at 1."""

STAGES = ("queue", "decode", "forward", "search", "total")

# A time beside every counter and histogram, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the package does not say what it takes: nothing


class _IndexCollector(Collector):
    """Tells of one index as a whole: a scrape in the middle of a swap sees the old one or the new one."""

    def __init__(self) -> None:
        self.served: tuple[Manifest, Runtime] | None = None

    def collect(self) -> Iterable[Metric]:
        served = self.served
        yield _gauge("carsearch_ready", "1 when the server has an index to answer with", served is not None)
        if served is None:
            return
        manifest, runtime = served
        about = (manifest.id, manifest.model_name, runtime.name, runtime.precision)
        info = GaugeMetricFamily(
            "carsearch_index_info", "What is served; always 1", labels=("version", "model", "runtime", "precision")
        )
        info.add_metric(about, 1)
        yield info
        created_s, classes = manifest.created_s, manifest.gallery["classes"]
        yield _gauge("carsearch_index_created_seconds", "When the served index was built, Unix time", created_s)
        age_s = time.time() - created_s
        yield _gauge("carsearch_index_age_seconds", "Seconds since the served index was built", age_s)
        yield _gauge("carsearch_gallery_photos", "Photos in the served index", manifest.count)
        yield _gauge("carsearch_gallery_classes", "Classes in the served index", classes)


class Metrics:
    """All metrics, on a registry of their own so that several apps can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._index = _IndexCollector()
        self.registry.register(self._index)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"carsearch_{name}", what, labels, registry=self.registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"carsearch_{name}", what, labels, registry=self.registry)

        def histogram(name: str, what: str, label: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"carsearch_{name}", what, (label,), buckets=buckets, registry=self.registry)

        self.answers = counter("answers_total", "Answers by route, status and error code", "route", "status", "code")
        self.batch_answers = counter("batch_answers_total", "Photos of /search/batch by error code", "code")
        took = "From a request's headers to its answer, the upload included"
        self.request_seconds = histogram("request_seconds", took, "route", REQUEST_SECONDS)
        self.stage_seconds = histogram("search_stage_seconds", "Time of each stage of a search", "stage", STAGE_SECONDS)
        self.draining = gauge("draining", "1 after SIGTERM, while requests are still answered")
        self.queue_waiting = gauge("queue_waiting", "Searches and gallery images that wait")
        self.queue_running = gauge("queue_running", "Searches and gallery images being worked on")
        self.queue_limit = gauge("queue_limit", "How many may wait before more get 429")
        self.changes = gauge("changes", "Photos put and deleted that stand beside the served index")
        self.changes_limit = gauge("changes_limit", "How many may stand there before more get 507; 0 without a log")
        self.batch_photos = histogram("batch_photos", "Photos embedded together", "work", BATCH_PHOTOS)
        self.evaluations = counter("evaluations_total", "Evaluations by how they ended", "status")
        self.evaluation_running = gauge("evaluation_running", "1 while an evaluation runs")
        self.evaluation_photos = gauge("evaluation_photos", "Photos of the running evaluation")
        self.evaluation_done = gauge("evaluation_photos_done", "Of these, embedded so far")
        self.swaps = counter("index_swaps_total", "Index versions switched to")
        self.refusals = counter("index_refusals_total", "Index versions that did not verify")
        self.refused = gauge("index_refused", "1 while CURRENT names a version that was refused")
        gauge("memory_limit_bytes", "Memory at which the container is killed, or +Inf").set(memory_limit_bytes())
        gauge("build_info", "The program's version; always 1", "version").labels(__version__).set(1)
        self._begin_series()

    def _begin_series(self) -> None:
        """A series that is there from the start can be asked how it grew."""
        for route in WORK_ROUTES:
            self.request_seconds.labels(route)
            for status, code in WATCHED:
                self.answers.labels(route, status, code)
        for _, code in WATCHED:
            self.batch_answers.labels(code)
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for work in ("search", "evaluate"):
            self.batch_photos.labels(work)
        for status in ("done", "failed", "cancelled"):
            self.evaluations.labels(status)

    def serve(self, manifest: Manifest, runtime: Runtime) -> None:
        """Counts a swap and tells from now on of this index, and of what runs its model."""
        self._index.served = manifest, runtime
        self.swaps.inc()

    def serve_nothing(self) -> None:
        """Tells from now on that there is no index to answer with."""
        self._index.served = None

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
