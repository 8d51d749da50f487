"""An index of many made-up photos from end to end, without a network: killed once, resumed, changed and folded.

Tells what is missing, twice in the index, wrong or embedded twice, and the highest anonymous memory of each step: pages
of mapped files, which the system takes back when it needs them, are not in it.
"""

import random
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from bench.build_memory import made_up_photo, peak_of, photo_path, write_photos
from indexer.build import build_index, embeddings_of
from indexer.delta import DeltaLog, NewPhoto
from indexer.fold import fold_index
from indexer.items import ItemTable, sha256_bytes
from indexer.manifest import ITEMS_NAME
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import CarsearchError
from model.runtimes.base import Pending
from model.types import Pixels

COMPARED = 1_000
"""Photos that are embedded once more, to compare with what the index holds of them."""

ADDED = 100
PUT_ID, NOT_IN_GALLERY = "put.jpg", 10**9


class Wrong(CarsearchError, code="build_wrong"):
    """An index does not hold what it was built from."""


@dataclass(frozen=True, slots=True)
class Step:
    """A build or fold: seconds, the peak of anonymous memory, and photos that the network embedded."""

    name: str
    seconds: float
    peak_bytes: int
    embedded: int


@dataclass(frozen=True, slots=True)
class Scale:
    """What an index of so many photos took. `embedded_again` counts those that the kill had embedded twice."""

    photos: int
    storage: str
    steps: list[Step]
    embedded_again: int


class _Counting(Embedder):
    """Counts the photos that are given to the network, where another process sees it."""

    counter: Any = None

    def submit_crops(self, crops: Pixels, *, lone: bool = False) -> Pending:
        with self.counter.get_lock():
            self.counter.value += len(crops)
        return super().submit_crops(crops, lone=lone)


def measure(photos: int, model: str, folder: Path) -> Scale:
    """Builds in a folder, which may hold the photos of a run before; raises Wrong."""
    gallery, index, delta = folder / "photos", IndexDirectory(folder / "index"), folder / "delta"
    for path in (index.root, delta):
        shutil.rmtree(path, ignore_errors=True)
    write_photos(gallery, range(photos))
    killed = _step("killed half-way", photos // 2, _build, gallery, index.root, model)
    resumed = _step("resumed", None, _build, gallery, index.root, model)
    _check(index, gallery, photos, model)
    write_photos(gallery, range(photos, photos + ADDED))
    rebuilt = _step(f"{ADDED} photos more", None, _build, gallery, index.root, model)
    _check(index, gallery, photos + ADDED, model)
    _put(DeltaLog(delta), model)
    folded = _step("folded", None, _fold, index.root, delta)
    if index.manifest(index.current()).count != photos + ADDED:  # one put, one deleted
        raise Wrong("The fold lost or doubled photos.")
    again = killed.embedded + resumed.embedded - photos
    if rebuilt.embedded != ADDED or folded.embedded:
        raise Wrong(f"{rebuilt.embedded} photos were embedded where {ADDED} are new.")
    return Scale(photos, str(index.manifest(index.current()).storage), [killed, resumed, rebuilt, folded], again)


def _step(name: str, kill_at: int | None, work: Any, *arguments: object) -> Step:
    """Runs a step in a process of its own, which is killed when it has embedded `kill_at` photos."""
    context = get_context("spawn")
    counter = context.Value("q", 0)
    process = context.Process(target=work, args=(counter, *arguments))
    started = time.perf_counter()
    process.start()
    peak = peak_of(process, lambda: kill_at is not None and counter.value >= kill_at)
    if process.exitcode and kill_at is None:
        raise ChildProcessError(f"{name}: the process ended with {process.exitcode}.")
    return Step(name, time.perf_counter() - started, peak, counter.value)


def _build(counter: Any, gallery: Path, index: Path, model: str) -> None:
    _Counting.counter = counter
    build_index(gallery, index, _Counting.load(model, "fake"), trust_mtime=True)


def _fold(_counter: Any, index: Path, delta: Path) -> None:
    fold_index(IndexDirectory(index), DeltaLog(delta))


def _put(log: DeltaLog, model: str) -> None:
    """Puts a photo and deletes another."""
    embedder = Embedder.load(model, "fake")
    photo = made_up_photo(NOT_IN_GALLERY)
    log.put([NewPhoto(PUT_ID, "", photo, embedder.embed_photo(photo))], embedder.embedding_id)
    log.delete(photo_path(Path(), 0).as_posix())


def _check(index: IndexDirectory, gallery: Path, photos: int, model: str) -> None:
    """Raises Wrong unless the current version has every photo once, and the right vectors of some of them."""
    manifest = index.verify(index.current())
    directory = index.path_of(manifest.id)
    wanted = {photo_path(Path(), number).as_posix() for number in range(photos)}
    with closing(ItemTable(directory / ITEMS_NAME)) as table:
        found = [item.id for item in table.all()]
        if len(found) != photos or set(found) != wanted:
            missing, twice = len(wanted - set(found)), len(found) - len(set(found))
            raise Wrong(f"Of {photos} photos {missing} are missing and {twice} are there twice.")
        vectors, embedder = embeddings_of(directory, manifest), Embedder.load(model, "fake")
        for row in random.Random(0).sample(range(photos), min(photos, COMPARED)):  # noqa: S311  # rows to compare, no secret
            data = (gallery / found[row]).read_bytes()
            right = table.by_id(found[row]).sha256 == sha256_bytes(data)
            if not right or not np.array_equal(vectors(np.array([row]))[0], embedder.embed_photo(data)):
                raise Wrong(f"The vector of {found[row]} is that of another photo.")


def table_of(scale: Scale) -> Table:
    table = Table("step", "photos embedded", "seconds", "peak of anonymous memory")
    for step in scale.steps:
        table.add_row(step.name, f"{step.embedded:,}", f"{step.seconds:.0f}", f"{step.peak_bytes / 2**20:.0f} MiB")
    table.caption = f"{scale.photos:,} photos in {scale.storage}: all there once, {scale.embedded_again} embedded twice"
    return table
