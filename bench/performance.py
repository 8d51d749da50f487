"""One run of all performance measurements: throughput beside the limit and a peer, bulk work, start, memory."""

import importlib.metadata
import math
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from bench import resources, throughput
from bench.bars import Bar, bars_of
from bench.limit import cores
from bench.sizing import publish_made_up
from bench.throughput import Effort, Say
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.demo.gallery import DemoGallery

PACKAGES = ("carsearch", "faiss-cpu", "openvino", "torch", "numpy", "pillow", "uvicorn", "httptools", "uvloop")


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of a run: rows of the made-up gallery, requests of the long use, photos to index, repetitions."""

    items: int
    requests: int
    photos: int
    bulk_rounds: int
    starts: int
    effort: Effort


FULL = Extent(
    items=11_046,
    requests=50_000,
    photos=5_280,
    bulk_rounds=3,
    starts=5,
    effort=Effort(
        rounds=5, load_s=8, warm_up_s=2, part_s=2, clients=(1, 2, 8, 32, 128), fractions=(0.3, 0.5, 0.7, 0.9)
    ),
)
QUICK = Extent(
    items=500,
    requests=50,
    photos=66,
    bulk_rounds=1,
    starts=1,
    effort=Effort(rounds=1, load_s=1.5, warm_up_s=0.3, part_s=0.1, clients=(1, 8, 32), fractions=(0.7,)),
)
"""A run of seconds, to see that everything works; its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Performance:
    """The figures of one run, and the machine and versions they were measured with."""

    model: str
    items: int
    cores: int
    machine: str
    finished: str
    took_s: float
    versions: dict[str, str]
    throughput: throughput.Throughput
    bulk: resources.Bulk
    start: resources.Start
    memory: resources.Memory

    @property
    def bars(self) -> list[Bar]:
        return bars_of(self.throughput, self.bulk, self.start, self.memory)

    def to_json(self) -> dict[str, Any]:
        """Every figure, and the bars with their verdicts."""
        value = {"bars": [asdict(bar) | {"verdict": bar.verdict} for bar in self.bars], **asdict(self)}
        return cast(dict[str, Any], _without_nan(value))


def measure(model: str, extent: Extent, say: Say) -> Performance:
    """Measures everything in one run and reports each step to `say`; raises ServerFailed, LoadFailed."""
    started = time.monotonic()
    embedder = Embedder.load(model, "openvino")
    photos = demo_photos()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = IndexDirectory(folder / "index")
        publish_made_up(index, embedder, extent.items)
        speed = throughput.measure(index, photos, extent.effort, folder, say)
        say("index building and evaluation")
        bulk = resources.measure_bulk(embedder, photos, extent.photos, extent.bulk_rounds, extent.effort.part_s)
        say("start to ready")
        start = resources.measure_start(index, extent.starts, folder)
        say("memory")
        memory = resources.measure_memory(index, embedder, photos, extent.requests, folder, say)
    return Performance(
        model=embedder.card.name,
        items=extent.items,
        cores=cores(),
        machine=_processor(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        took_s=time.monotonic() - started,
        versions=_versions(),
        throughput=speed,
        bulk=bulk,
        start=start,
        memory=memory,
    )


def demo_photos() -> list[Path]:
    """The demo's photos: gallery and queries."""
    gallery = DemoGallery.load()
    return sorted(gallery.photos.rglob("*.jpg")) + [gallery.directory / query.file for query in gallery.queries]


def _without_nan(value: object) -> object:
    """JSON has no NaN: a figure that could not be measured is null."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The processor's name, where /proc/cpuinfo has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
