"""Sizing: memory, disk and start time for galleries of made-up embeddings, and photos a second for cores.

A real server process serves each gallery, and the load generator shares its cores, as on a small machine. Queries are
the demo's photos. The cost of an exact search does not depend on the values of the embeddings.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from bench import load
from bench.serving import ServerFailed, running_server
from indexer.benchmark.storage_recall import measured_recall
from indexer.items import GalleryItem, write_items
from indexer.manifest import EMBEDDINGS_NAME, INDEX_NAME, ITEMS_NAME, SKIPPED_NAME, Manifest
from indexer.stores.faiss import FaissStore
from indexer.stores.precision import Storage
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.demo.gallery import DemoGallery

PHOTOS_A_CLASS = 100
RECALL_QUERIES = 256
CLIENTS = 8
WARM_UP_S = 2.0
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Size:
    """The cost of one gallery on some cores; `memory_bytes` is resident memory after the searches."""

    items: int
    cores: int
    disk_bytes: int
    memory_bytes: int
    ready_s: float
    search_ms: float
    photos_per_s: float


def measure(items: Sequence[int], cores: Sequence[int], seconds: float, model: str = "resnet18") -> list[Size]:
    """Measures every number of items on every number of cores; raises ServerFailed."""
    embedder = Embedder.load(model, "openvino")
    gallery = DemoGallery.load()
    photos = tuple(str(gallery.directory / query.file) for query in gallery.queries)
    sizes = []
    for count in items:
        with tempfile.TemporaryDirectory() as folder:
            index = IndexDirectory(Path(folder))
            publish_made_up(index, embedder, count)
            disk_bytes = sum(path.stat().st_size for path in index.path_of(index.current()).iterdir())
            sizes += [_measure_one(index, count, disk_bytes, number, photos, seconds) for number in cores]
    return sizes


def publish_made_up(index: IndexDirectory, embedder: Embedder, count: int, storage: Storage = Storage.fp16) -> None:
    """Publishes a version of `count` random unit vectors, made by the code that makes a real one.

    Random vectors have no near neighbours, so the measured recall says nothing and no storage is refused.
    """
    random = np.random.default_rng(0)
    now = datetime.now(UTC)

    def write(directory: Path) -> Manifest:
        vectors = random.standard_normal((count, embedder.dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        store = FaissStore.create(vectors, storage)
        store.write(directory / INDEX_NAME)
        recipe: dict[str, Any] = storage.recipe
        if storage.lossy:
            recall = measured_recall(vectors, store, RECALL_QUERIES)
            recipe |= {"recall_at_1": recall.share, "queries": recall.queries}
            (directory / EMBEDDINGS_NAME).write_bytes(vectors.data)
        labels = [f"car {row // PHOTOS_A_CLASS}" for row in range(count)]
        write_items(
            directory / ITEMS_NAME,
            (GalleryItem(row, f"{label}/{row}.jpg", label, f"{row:064x}", b"x") for row, label in enumerate(labels)),
        )
        (directory / SKIPPED_NAME).write_text("[]")
        return Manifest(
            id=f"{now:%Y%m%dT%H%M%S.%fZ}-madeup",
            created=now.isoformat(timespec="seconds"),
            dim=embedder.dim,
            count=count,
            metric="inner_product",
            index_recipe=recipe,
            model_sha256=index.publish_model(embedder.directory),
            model_name=embedder.card.name,
            embedding_id=embedder.embedding_id,
            preprocessing_sha256=embedder.card.input.sha256,
            content_sha256="0" * 64,
            gallery={"root": str(index.root), "classes": len(set(labels)), "skipped": 0},
            files={},
        )

    index.publish(f"{now:%Y%m%dT%H%M%S.%fZ}-madeup", write)


def _measure_one(
    index: IndexDirectory, count: int, disk_bytes: int, cores: int, photos: tuple[str, ...], seconds: float
) -> Size:
    with running_server(index.root, cores, RUNTIME="openvino", LOG_LEVEL="warning") as server:
        load.run(load.Order(server.port, CLIENTS, WARM_UP_S, photos, warm_up_s=0))
        before = _histogram(server.port)
        asked = load.run(load.Order(server.port, CLIENTS, seconds, photos, warm_up_s=0))
        after = _histogram(server.port)
        searches = after[1] - before[1]
        if not searches:
            raise ServerFailed("No search was answered; see the server's output above.")
        return Size(
            items=count,
            cores=cores,
            disk_bytes=disk_bytes,
            memory_bytes=int(_scrape(server.port)["process_resident_memory_bytes"]),
            ready_s=server.ready_s,
            search_ms=(after[0] - before[0]) / searches * 1000,
            photos_per_s=asked.rate_per_s,
        )


def _scrape(port: int) -> dict[str, float]:
    families = text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    return {
        sample.name + sample.labels.get("stage", ""): sample.value
        for family in families
        for sample in family.samples
        if "le" not in sample.labels
    }


def _histogram(port: int) -> tuple[float, float]:
    """Seconds in the search stage so far, and searches."""
    scraped = _scrape(port)
    return scraped["carsearch_search_stage_seconds_sumsearch"], scraped["carsearch_search_stage_seconds_countsearch"]


def table_of(sizes: Sequence[Size]) -> Table:
    """One line for each size."""
    table = Table("photos in gallery", "cores", "index on disk", "memory", "ready after", "search stage", "photos/s")
    for size in sizes:
        table.add_row(
            f"{size.items:,}",
            str(size.cores),
            f"{size.disk_bytes / MIB:.0f} MiB",
            f"{size.memory_bytes / MIB:.0f} MiB",
            f"{size.ready_s:.1f} s",
            f"{size.search_ms:.2f} ms",
            f"{size.photos_per_s:.0f}",
        )
    return table


def middle(runs: Sequence[Sequence[Size]]) -> list[Size]:
    """The run with the median rate, for each size."""
    return [sorted(column, key=lambda size: size.photos_per_s)[len(column) // 2] for column in zip(*runs, strict=True)]
