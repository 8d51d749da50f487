"""Embedding on a Ray cluster: an actor with the model on each node, results in parts on the machine that builds.

`RAY_ADDRESS` names the cluster; without it one is started on this machine, which others cannot reach.
"""

import logging
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from indexer.distributed.parts import Parts, table_of
from indexer.distributed.stored import StoredPhoto
from indexer.embed import EmbeddedBatch, Lookup, Unchanged, embed_photos, nothing_unchanged
from indexer.items import GalleryItem
from model.card import CARD_NAME
from model.dataset import Item, Photo, Skipped
from model.embedder import Embedder, Progress
from model.errors import CarsearchError, EngineFailed, FileUnreadable
from model.parallel import batched
from model.types import Embeddings

PHOTOS_PER_JOB = 1_000_000
"""Ray holds the names of a job's photos in memory."""

MOST_PER_TASK = 1024
"""Photos of a task, which is what a node that dies takes with it, and of a part."""

TASKS_PER_NODE = 8
"""At least so many, where there are photos enough, so that no node waits long for the last one."""

GO_ON = "What is embedded is kept; run the same command again to go on."
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Ray tells its makers nothing of its use, and the console nothing that is not the command's."""

LOCAL: dict[str, Any] = {
    "address": "local",  # and none that already runs here
    "num_cpus": 2,  # one for the actor, which embeds on all cores whatever Ray counts, and one for Ray
    "include_dashboard": False,
    "_node_ip_address": "127.0.0.1",
}
"""A cluster of this machine alone."""

FOUND = np.empty(0, np.float32)
"""Stands for the embedding of a photo that the version before has."""


def embed_on_ray(
    photos: Sequence[Photo],
    embedder: Embedder,
    known: Lookup,
    before: Iterable[GalleryItem],
    unchanged: Unchanged,
    work: Path,
    progress: Progress,
) -> Iterator[EmbeddedBatch]:
    """The `EmbeddingEngine` that embeds on a cluster; raises EngineFailed where it cannot go on."""
    del unchanged  # every photo is read
    parts = Parts(work / "parts", embedder.dim)
    done = parts.stamps(known)
    missing = [photo for photo in photos if photo.id not in done or done[photo.id] != stamp_of(photo)]
    missing.sort(key=lambda photo: photo.place if isinstance(photo, StoredPhoto) else ("", 0, 0))
    usable = any(known(item.sha256) is not None for item in islice(before, 1))
    contents = np.sort(np.array([item.sha256 for item in before] if usable else [], "S64"))
    by_id = {photo.id: photo for photo in missing}
    finished = len(photos) - len(missing)
    del done
    progress(finished, len(photos))
    with _cluster() if missing else nullcontext():
        for job in batched(missing, PHOTOS_PER_JOB):
            for part in _embedded(job, embedder, contents):
                _refuse_failed(part, by_id)
                parts.add(part)
                finished += len(part)
                progress(finished, len(photos))
    yield from parts.batches(photos, known)


def stamp_of(photo: Photo) -> str:
    """What changes when a photo's content does, without reading it; empty where that cannot be told."""
    if isinstance(photo, StoredPhoto):
        return photo.stamp
    try:
        status = photo.path.stat() if isinstance(photo, Item) else None
    except (OSError, ValueError):
        status = None
    return "" if status is None else f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


class EmbeddingActor:
    """A model in a process of a node, which embeds on all of its cores."""

    def __init__(self, shared: Sequence[ray.ObjectRef], runtime: str, precision: str, dim: int) -> None:
        self._shared, self._runtime, self._precision, self._dim = shared, runtime, precision, dim
        self._embedder: Embedder | None = None

    def __call__(self, task: pa.Table) -> pa.Table:
        """Pickled photos -> a part, or one row of EngineFailed: what Ray raises does not keep the sentence."""
        photos: list[Photo] = [pickle.loads(photo) for photo in task["photo"].to_pylist()]  # noqa: S301  # of `_embedded`
        stamps = {photo.id: stamp_of(photo) for photo in photos}  # before they are read
        try:
            if self._embedder is None:
                self._embedder = self._loaded()
            batches = embed_photos(photos, self._embedder, self._found, unchanged=nothing_unchanged)
            return table_of(batches, stamps, self._dim)
        except Exception as problem:
            why = str(problem) if isinstance(problem, CarsearchError) else f"{type(problem).__name__}: {problem}"
            failed = EmbeddedBatch([], [Skipped("", EngineFailed.code, why)], {})
            return table_of([failed], {"": ""}, self._dim)

    def _loaded(self) -> Embedder:
        files, self._contents = ray.get(list(self._shared))
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            return Embedder.load(folder, self._runtime, self._precision)

    def _found(self, sha256: str) -> Embeddings | None:
        name = sha256.encode()
        place = int(np.searchsorted(self._contents, name))
        return FOUND if place < len(self._contents) and self._contents[place] == name else None


def _embedded(photos: Sequence[Photo], embedder: Embedder, contents: np.ndarray[Any, Any]) -> Iterator[pa.Table]:
    """Parts of some photos, in the order in which they are done."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [resources["CPU"] for resources in nodes if resources.get("CPU")]
    gpus = int(sum(resources.get("GPU", 0) for resources in nodes)) if embedder.runtime.name == "torch" else 0
    if not (actors := gpus or len(cpus)):
        raise EngineFailed("No node of the cluster has a CPU for Ray; start one, and run the command again.")
    size = max(1, min(MOST_PER_TASK, len(photos) // (TASKS_PER_NODE * actors)))
    tasks = [pa.table({"photo": [pickle.dumps(photo) for photo in task]}) for task in batched(photos, size)]
    model = {name: (embedder.directory / name).read_bytes() for name in (*embedder.card.files, CARD_NAME)}
    shared = [ray.put(model), ray.put(contents)]
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    dataset = ray.data.from_arrow(tasks).map_batches(
        EmbeddingActor,
        fn_constructor_args=(shared, embedder.runtime.name, embedder.runtime.precision, embedder.dim),
        compute=ActorPoolStrategy(size=actors),
        # One CPU of each node is left to Ray: a job whose actors hold them all may wait for ever.
        num_cpus=1 if gpus else max(1, min(cpus) - 1),
        num_gpus=1 if gpus else 0,
        batch_size=None,
        batch_format="pyarrow",
    )
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayError as problem:
        raise EngineFailed(f"Ray ended the job: {str(problem).partition(os.linesep)[0]} {GO_ON}") from problem


def _refuse_failed(part: pa.Table, photos: Mapping[str, Photo]) -> None:
    """Raises EngineFailed where a node failed, or could not read a photo that this machine can."""
    for row in part.select(["id", "code", "message"]).to_pylist():
        if row["code"] == EngineFailed.code:
            raise EngineFailed(f"A node cannot embed: {row['message']} {GO_ON}")
        if row["code"] == FileUnreadable.code:
            with suppress(FileUnreadable):
                photos[row["id"]].read()
                raise EngineFailed(f"A node cannot read {row['id']}; the gallery must have one path on every node.")


@contextmanager
def _cluster() -> Iterator[None]:
    """Connects to the cluster, unless the caller has done that."""
    if ray.is_initialized():
        yield
        return
    os.environ |= QUIET
    alone = {} if "RAY_ADDRESS" in os.environ else LOCAL
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **alone)
    except (OSError, RuntimeError, ValueError) as problem:
        raise EngineFailed(f"There is no Ray cluster: {problem}") from problem
    try:
        yield
    finally:
        ray.shutdown()
