"""python -m bench.gpu [--model NAME_OR_DIR] [--photos DIR]: photos a second of a GPU, and of each step before it.

It measures the network alone (forward), decoding alone (decode), what an index build reaches from JPEG bytes (end to
end), and the ratio of the last to the first. The table goes to stderr, JSON to stdout. It needs neither FAISS nor
OpenVINO. Without a GPU it runs on the CPU, to try it out. Run it on an otherwise idle machine.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.photos import MemoryPhoto, made_up_photos, photos_of
from indexer.embed import embed_photos
from model.card import BF16, FP32, InputSpec, load_card
from model.embedder import Embedder, find_model
from model.images.transform import prepare
from model.parallel import decode_pool
from model.runtimes.torch import TorchRuntime

COUNT = {"cuda": 8192, "cpu": 96}
BATCHES = {"cuda": (1, 8, 32, 64, 128, 256), "cpu": (1, 8, 32)}
LAUNCHES = {"cuda": 8, "cpu": 1}
"""Batches that are launched before the device is waited for."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Photos a second of one step."""

    step: str
    how: str
    photos_per_s: float
    batch: int | None = None


def forward(runtime: TorchRuntime, batch: int, seconds: float) -> Figure:
    """The network alone, on crops that are on the device, after one batch that is not counted."""
    device, side = runtime.device, runtime.network.spec.crop
    crops = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        runtime.network(crops)
        _wait(device)
        done, started = 0, time.perf_counter()
        while done == 0 or time.perf_counter() - started < seconds:
            for _ in range(LAUNCHES[device.type]):
                runtime.network(crops)
                done += batch
            _wait(device)
    return Figure("forward", runtime.precision, done / (time.perf_counter() - started), batch)


def decode(photos: Sequence[MemoryPhoto], spec: InputSpec) -> Figure:
    """Bytes to crops in the decode pool."""
    workers = len(os.sched_getaffinity(0))
    with decode_pool() as pool:
        list(pool.map(lambda photo: prepare(photo.data, spec), photos[:workers]))
        started = time.perf_counter()
        list(pool.map(lambda photo: prepare(photo.data, spec), photos))
    return Figure("decode", f"{workers} workers", len(photos) / (time.perf_counter() - started))


def end_to_end(embedder: Embedder, photos: Sequence[MemoryPhoto]) -> Figure:
    """JPEG bytes to embeddings, as `carsearch index` does it, after a warm-up."""
    for _ in embed_photos(photos[: 2 * embedder.batch], embedder):
        pass
    started = time.perf_counter()
    done = sum(batch.photos for batch in embed_photos(photos, embedder))
    return Figure("end to end", embedder.runtime.precision, done / (time.perf_counter() - started), embedder.batch)


def measure(
    directory: Path, photos: Sequence[MemoryPhoto], device: torch.device, batches: Sequence[int], seconds: float
) -> dict[str, Any]:
    """All figures of a model on a device."""
    card = load_card(directory)
    figures = [decode(photos, card.input)]
    ratios: dict[str, float] = {}
    for precision in (FP32, BF16):
        runtime = TorchRuntime(directory, card, precision, device=str(device))
        alone = [forward(runtime, batch, seconds) for batch in batches]
        whole = end_to_end(Embedder(directory, card, runtime), photos)
        ratios[precision] = whole.photos_per_s / max(figure.photos_per_s for figure in alone)
        figures += [*alone, whole]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "workers": len(os.sched_getaffinity(0)),
        "torch": version("torch"),
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


def table_of(report: dict[str, Any]) -> str:
    """The figures for people; the last column is the ratio of an end to end to the fastest forward."""
    lines = [f"{report['model']} on {report['device']}, {report['workers']} cores, torch {report['torch']}"]
    lines.append(f"{'step':12}{'how':14}{'batch':>6}{'photos/s':>12}{'of forward':>12}")
    for figure in report["figures"]:
        whole = figure["step"] == "end to end"
        ratio = f"{report['end_to_end_to_forward_limit'][figure['how']]:.2f}" if whole else ""
        batch = figure["batch"] or ""
        lines.append(f"{figure['step']:12}{figure['how']:14}{batch:>6}{figure['photos_per_s']:>12.0f}{ratio:>12}")
    return "\n".join(lines)


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="name of a model that ships, or a directory; the default model by default")
    parser.add_argument("--photos", type=Path, help="a labelled set; by default made-up photos of 512 x 384")
    parser.add_argument("--count", type=int, help="photos for decode and end to end")
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes for forward")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure of forward")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    count = options.count or COUNT[options.device]
    photos = photos_of(options.photos, count) if options.photos else made_up_photos(count)
    batches = options.batches or BATCHES[options.device]
    report = measure(find_model(options.model), photos, torch.device(options.device), batches, options.seconds)
    sys.stderr.write(table_of(report) + "\n")
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
