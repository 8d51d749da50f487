"""The memory of a build for each photo, without a network: the growth of its peak from some photos to twice so many.

Peaks are of anonymous memory: pages of mapped files, which the system takes back when it needs them, are not in it.
"""

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table

from bench.procfs import anonymous_bytes
from indexer.build import build_index
from indexer.stores.precision import Storage
from model.embedder import Embedder

SIDE, CELLS = 32, 8
A_FOLDER = 100
SPREAD = 24
"""Standard deviation of the colours of a class's photos, in levels: the nearest photo has a cosine near 0.8."""

SAMPLE_S = 0.02


@dataclass(frozen=True, slots=True)
class Growth:
    """The peaks of anonymous memory of two builds, and their difference for each photo more."""

    photos: int
    peak_bytes: int
    photos_of_the_larger: int
    larger_peak_bytes: int
    vector_bytes: int

    @property
    def bytes_a_photo(self) -> float:
        return (self.larger_peak_bytes - self.peak_bytes) / (self.photos_of_the_larger - self.photos)


def measure(photos: int, model: str, storage: Storage) -> Growth:
    """Builds an index of made-up photos and one of twice as many, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        gallery = Path(folder) / "photos"
        peaks = []
        for first, count in ((0, photos), (photos, 2 * photos)):
            write_photos(gallery, range(first, count))
            peaks.append(_peak_of_build(gallery, Path(folder) / f"index-{count}", model, storage))
    return Growth(photos, peaks[0], 2 * photos, peaks[1], 4 * Embedder.load(model, "fake").dim)


def photo_path(gallery: Path, number: int) -> Path:
    """Where a made-up photo lies, in the folder of its class."""
    return gallery / f"car {number // A_FOLDER}" / f"{number}.jpg"


def made_up_photo(number: int) -> bytes:
    """A small JPEG: random colours around those of its class."""
    of_class = np.random.default_rng([1, number // A_FOLDER]).integers(40, 216, (CELLS, CELLS, 3))
    own = np.random.default_rng([0, number]).normal(0, SPREAD, of_class.shape)
    colours = (of_class + own).clip(0, 255).astype(np.uint8)
    pixels = colours.repeat(SIDE // CELLS, axis=0).repeat(SIDE // CELLS, axis=1)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG")
    return written.getvalue()


def write_photos(gallery: Path, numbers: Iterable[int]) -> None:
    """Writes made-up photos, those that are there excepted."""
    for number in numbers:
        path = photo_path(gallery, number)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(made_up_photo(number))


def _peak_of_build(gallery: Path, index: Path, model: str, storage: Storage) -> int:
    process = get_context("spawn").Process(target=_build, args=(gallery, index, model, storage))
    process.start()
    peak = peak_of(process)
    if process.exitcode:
        raise ChildProcessError(f"The build ended with {process.exitcode}.")
    return peak


def peak_of(process: BaseProcess, is_over: Callable[[], bool] = lambda: False) -> int:
    """The highest anonymous memory of a process, in bytes, until it ends; kills it when it `is_over`."""
    peak = 0
    while process.exitcode is None:
        if is_over():
            process.kill()
        try:
            peak = max(peak, anonymous_bytes(process.pid or os.getpid()))
        except (OSError, ProcessLookupError):
            break  # it has just ended
        time.sleep(SAMPLE_S)
    process.join()
    return peak


def _build(gallery: Path, index: Path, model: str, storage: Storage) -> None:
    build_index(gallery, index, Embedder.load(model, "fake"), storage=storage)


def table_of(growth: Growth) -> Table:
    table = Table("photos", "peak of anonymous memory")
    for photos, peak in ((growth.photos, growth.peak_bytes), (growth.photos_of_the_larger, growth.larger_peak_bytes)):
        table.add_row(f"{photos:,}", f"{peak / 2**20:.0f} MiB")
    table.add_row("each more", f"{growth.bytes_a_photo:.0f} bytes; its vector has {growth.vector_bytes}")
    return table
