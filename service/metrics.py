"""Prometheus metrics of one server process; label values come from fixed sets."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """All metrics, on a registry of their own so that several apps can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.answers = Counter(
            "carsearch_answers_total", "Answers by route, status and error code", ["route", "status", "code"],
            registry=self.registry,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            "carsearch_search_stage_seconds", "Time of each stage of a search", ["stage"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.waiting = Gauge("carsearch_waiting", "Searches and images waiting or running", registry=self.registry)
        self.gallery_photos = Gauge("carsearch_gallery_photos", "Photos in the served index", registry=self.registry)
        self.index_created = Gauge(
            "carsearch_index_created_seconds", "When the served index was built, Unix time", registry=self.registry
        )
        self.ready = Gauge("carsearch_ready", "1 when the server can answer searches", registry=self.registry)
        self.swaps = Counter("carsearch_index_swaps_total", "Index versions switched to", registry=self.registry)
        self.refused = Counter(
            "carsearch_index_refused_total", "Index versions that did not verify", registry=self.registry
        )
        self.evaluations = Counter(
            "carsearch_evaluations_total", "Evaluations by how they ended", ["status"], registry=self.registry
        )
