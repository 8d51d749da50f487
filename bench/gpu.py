"""python -m bench.gpu [--model NAME_OR_DIR] [--photos DIR]: photos a second of a GPU, and of each step before it.

It measures the network alone (forward), the steps before it (decode, copy), what an index build reaches from JPEG bytes
(end to end), and the ratio of the last to the first. The table goes to stderr, JSON to stdout. It needs neither FAISS
nor OpenVINO. Without a GPU it runs on the CPU, to try it out. Run it on an otherwise idle machine.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from bench.photos import MemoryPhoto, made_up_photos, photos_of
from indexer.embed import embed_photos
from model.card import BF16, FP32, Card, load_card
from model.embedder import Embedder, find_model
from model.images.preparation import HostPreparation, Preparation
from model.images.transform import prepare
from model.parallel import decode_pool
from model.runtimes.torch import TorchRuntime

COUNT = {"cuda": 8192, "cpu": 96}
BATCHES = {"cuda": (1, 8, 32, 64, 128, 256), "cpu": (1, 8, 32)}
LAUNCHES = {"cuda": 8, "cpu": 1}
UTILISATION_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Figure:
    """Photos a second of one step; `utilisation` is the percentage of the time in which the GPU ran a kernel."""

    step: str
    how: str
    photos_per_s: float
    batch: int | None = None
    utilisation: float | None = None


class Utilisation:
    """Samples how busy a GPU is while a block runs; without a GPU or nvidia-ml-py it has no samples."""

    def __init__(self) -> None:
        self._samples: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def mean(self) -> float | None:
        """Percent of the time in which a kernel ran; None when it is not known."""
        return sum(self._samples) / len(self._samples) if self._samples else None

    def _sample(self) -> None:
        while torch.cuda.is_available() and not self._ended.wait(UTILISATION_EVERY_S):
            try:
                self._samples.append(torch.cuda.utilization())
            except (ModuleNotFoundError, RuntimeError):
                return

    def __enter__(self) -> "Utilisation":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()


def rate(work: Callable[[], object], photos: int, seconds: float, device: torch.device) -> float:
    """Photos a second of `work`, which processes `photos` of them a call, after one call that is not counted."""
    work()
    _wait(device)
    done, started = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - started < seconds:
        for _ in range(LAUNCHES[device.type]):
            work()
            done += photos
        _wait(device)  # now and then, so that launches do not pile up
    return done / (time.perf_counter() - started)


def forward(runtime: TorchRuntime, batch: int, seconds: float) -> list[Figure]:
    """The network alone on crops that are on the device: launched layer by layer, and as a CUDA graph."""
    side = runtime.network.spec.crop
    crops = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=runtime.device)
    with torch.inference_mode():
        figures = [(runtime.precision, rate(lambda: runtime.network(crops), batch, seconds, runtime.device))]
    if runtime.device.type == "cuda":
        graph = rate(lambda: runtime.submit(crops), batch, seconds, runtime.device)
        figures.append((f"{runtime.precision}, CUDA graph", graph))
    return [Figure("forward", how, value, batch) for how, value in figures]


def copy(batch: int, side: int, seconds: float, device: torch.device) -> list[Figure]:
    """Crops from pinned memory to the device."""
    if device.type != "cuda":
        return []
    crops = torch.zeros((batch, side, side, 3), dtype=torch.uint8).pin_memory()
    return [Figure("copy", "pinned", rate(lambda: crops.to(device, non_blocking=True), batch, seconds, device), batch)]


def decode(photos: Sequence[MemoryPhoto], card: Card, preparations: dict[str, Preparation]) -> list[Figure]:
    """Bytes to crops: in the decode pool, and by nvJPEG on the device."""
    workers = len(os.sched_getaffinity(0))
    with decode_pool() as pool:
        list(pool.map(lambda photo: prepare(photo.data, card.input), photos[:workers]))
        started = time.perf_counter()
        list(pool.map(lambda photo: prepare(photo.data, card.input), photos))
        figures = [Figure("decode", f"cpu, {workers} workers", len(photos) / (time.perf_counter() - started))]
        if "nvjpeg" in preparations:
            preparation = preparations["nvjpeg"]
            staged = list(pool.map(lambda photo: preparation.stage(photo.data), photos))
            parts = [staged[start : start + 256] for start in range(0, len(staged), 256)]
            device = torch.device("cuda")
            preparation.crops(parts[0])
            _wait(device)
            started = time.perf_counter()
            for part in parts:
                preparation.crops(part)
            _wait(device)
            figures.append(Figure("decode", "nvjpeg", len(photos) / (time.perf_counter() - started), 256))
    return figures


def end_to_end(embedder: Embedder, how: str, photos: Sequence[MemoryPhoto]) -> Figure:
    """JPEG bytes to embeddings, as `carsearch index` does it, after a warm-up."""
    for _ in embed_photos(photos[: 2 * embedder.batch], embedder):
        pass
    with Utilisation() as utilisation:
        started = time.perf_counter()
        done = sum(batch.photos for batch in embed_photos(photos, embedder))
        elapsed = time.perf_counter() - started
    name = f"{embedder.runtime.precision}, {how}"
    return Figure("end to end", name, done / elapsed, embedder.batch, utilisation.mean())


def measure(
    directory: Path, photos: Sequence[MemoryPhoto], device: torch.device, batches: Sequence[int], seconds: float
) -> dict[str, Any]:
    """All figures of a model on a device."""
    card = load_card(directory)
    preparations: dict[str, Preparation] = {"cpu decode": HostPreparation(card.input)}
    if device.type == "cuda":
        from model.images.nvjpeg import NvjpegPreparation

        preparations["nvjpeg"] = NvjpegPreparation(card.input, device)
    figures: list[Figure] = []
    ratios: dict[str, float] = {}
    for precision in (FP32, BF16):
        runtime = TorchRuntime(directory, card, precision, device=str(device))
        alone = [figure for batch in batches for figure in forward(runtime, batch, seconds)]
        limit = max(figure.photos_per_s for figure in alone)
        whole = [
            end_to_end(Embedder(directory, card, runtime, preparation), how, photos)
            for how, preparation in preparations.items()
        ]
        ratios |= {figure.how: figure.photos_per_s / limit for figure in whole}
        figures += [*alone, Figure("forward limit", precision, limit), *whole]
    figures += copy(max(batches), card.input.crop, seconds, device)
    figures += decode(photos, card, preparations)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "workers": len(os.sched_getaffinity(0)),
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "model": card.name,
        "crop": card.input.crop,
        "photos": len(photos),
        "mean_photo_bytes": float(np.mean([len(photo.data) for photo in photos])),
        "figures": [asdict(figure) for figure in figures],
        "end_to_end_to_forward_limit": ratios,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for figure in report["figures"]:
        ratio = report["end_to_end_to_forward_limit"].get(figure["how"]) if figure["step"] == "end to end" else None
        used = figure["utilisation"]
        rows.append(
            (
                figure["step"],
                figure["how"],
                str(figure["batch"] or ""),
                f"{figure['photos_per_s']:.0f}",
                "" if ratio is None else f"{ratio:.2f}",
                "" if used is None else f"{used:.0f}%",
            )
        )
    return rows


def show(report: dict[str, Any]) -> None:
    """The figures as a table on stderr, plain where Rich is not installed."""
    heading = ("step", "how", "batch", "photos/s", "of the limit", "GPU in use")
    title = f"{report['model']} on {report['device']}, {report['workers']} cores, torch {report['torch']}"
    try:
        from rich.console import Console
        from rich.table import Table
    except ModuleNotFoundError:
        lines = ["\t".join(row) for row in (heading, *_rows(report))]
        sys.stderr.write("\n".join([title, *lines]) + "\n")
        return
    table = Table(*heading, title=title)
    for row in _rows(report):
        table.add_row(*row)
    Console(stderr=True).print(table)


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="name of a model that ships, or a directory; the default model by default")
    parser.add_argument("--photos", type=Path, help="a labelled set; by default made-up photos of 512 x 384")
    parser.add_argument("--count", type=int, help="photos for decode and end to end")
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes for forward")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure of forward and copy")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    count = options.count or COUNT[options.device]
    photos = photos_of(options.photos, count) if options.photos else made_up_photos(count)
    batches = options.batches or BATCHES[options.device]
    report = measure(find_model(options.model), photos, torch.device(options.device), batches, options.seconds)
    show(report)
    text = json.dumps(report, indent=1) + "\n"
    sys.stdout.write(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
