"""What a scrape tells: of one index at a time, of every stage from the start, and of an evaluation while it runs."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service import __version__
from service.observability.metrics import STAGES, Metrics
from tests.support.app import AppClient, running_app
from tests.support.calls import evaluate_named, eventually, metric, search
from tests.support.photos import car_photo, write_gallery

Samples = dict[str, list[tuple[dict[str, str], float]]]


def scraped(client: AppClient) -> Samples:
    """Every sample of /metrics by its name, as a scraper reads it."""
    samples: Samples = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def has_swapped(client: AppClient, times: int) -> bool:
    return metric(client, "carsearch_index_swaps_total") == times


def value(samples: Samples, name: str, **labels: str) -> float:
    return next(value for found, value in samples[name] if found.items() >= labels.items())


def test_an_index_is_told_of_as_a_whole_and_only_the_one_that_is_served(
    tmp_path: Path, fake_embedder: Embedder
) -> None:
    index = IndexDirectory(tmp_path / "index")
    with running_app(index.root, wait_ready=False) as client:
        empty = scraped(client)
        assert value(empty, "carsearch_ready") == 0
        assert "carsearch_index_info" not in empty
        versions = []
        for photos, kind in ((4, 0), (5, 10)):
            versions.append(
                build_index(write_gallery(tmp_path / str(kind), 3, photos, kind), index, fake_embedder).version
            )
            eventually(partial(has_swapped, client, len(versions)), "it is served")
            told = scraped(client)
            assert told["carsearch_index_info"] == [
                ({"version": versions[-1], "model": "fake", "runtime": "fake", "precision": "fake"}, 1)
            ]
            assert value(told, "carsearch_gallery_photos") == 3 * photos
            assert value(told, "carsearch_gallery_classes") == 3
            age_s = time.time() - value(told, "carsearch_index_created_seconds")
            assert 0 <= value(told, "carsearch_index_age_seconds") <= age_s + 1
        assert value(told, "carsearch_ready") == 1
        assert value(told, "carsearch_build_info", version=__version__) == 1


def test_a_search_is_measured_in_every_stage_and_counted_once(api_client: AppClient) -> None:
    before = scraped(api_client)
    answer = search(api_client, car_photo(0, 0))
    after = scraped(api_client)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert value(before, "carsearch_answers_total", route="/search", status="500", code="internal") >= 0

    for stage in STAGES:
        assert grown("carsearch_search_stage_seconds_count", stage=stage) == 1
        seconds = grown("carsearch_search_stage_seconds_sum", stage=stage)
        assert abs(seconds * 1000 - answer["timings_ms"][stage]) < 0.01
    assert grown("carsearch_answers_total", route="/search", status="200", code="ok") == 1
    assert grown("carsearch_request_seconds_count", route="/search") == 1
    assert grown("carsearch_batch_photos_sum", work="search") == 1
    assert value(after, "carsearch_queue_waiting") == value(after, "carsearch_queue_running") == 0
    assert value(after, "carsearch_queue_limit") == 64
    resident_bytes = value(after, "process_resident_memory_bytes")
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    assert abs(resident_bytes / 1024 / int(status.split("VmRSS:")[1].split()[0]) - 1) < 0.2


def test_an_evaluation_tells_how_far_it_is_and_then_is_over(api_client: AppClient) -> None:
    photos = value(scraped(api_client), "carsearch_batch_photos_sum", work="evaluate")
    done = value(scraped(api_client), "carsearch_evaluations_total", status="done")
    assert evaluate_named(api_client, "demo").status_code == 200
    after = scraped(api_client)
    assert value(after, "carsearch_batch_photos_sum", work="evaluate") == photos + 12
    assert value(after, "carsearch_evaluations_total", status="done") == done + 1
    for name in ("running", "photos", "photos_done"):
        assert value(after, f"carsearch_evaluation_{name}") == 0

    metrics = Metrics()
    sample = metrics.registry.get_sample_value
    with metrics.evaluating(500):
        metrics.evaluation_done.set(32)
        told = [sample(f"carsearch_evaluation_{name}") for name in ("running", "photos", "photos_done")]
    assert told == [1, 500, 32]
    assert sample("carsearch_evaluation_running") == 0


def test_a_scrape_between_two_indexes_mixes_nothing(fake_index: IndexDirectory, fake_embedder: Embedder) -> None:
    metrics, manifest = Metrics(), fake_index.manifest(fake_index.current())
    for number in (1, 2):
        made = replace(manifest, id=f"v{number}", count=number, gallery={"classes": number})
        metrics.serve(replace(made, created=datetime.fromtimestamp(number, UTC).isoformat()), fake_embedder.runtime)
        families = {family.name: family.samples for family in metrics.registry.collect()}
        assert [sample.labels["version"] for sample in families["carsearch_index_info"]] == [f"v{number}"]
        for name in ("gallery_photos", "gallery_classes", "index_created_seconds"):
            assert [sample.value for sample in families[f"carsearch_{name}"]] == [number]
