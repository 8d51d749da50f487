"""`/search` over HTTP with a small and a large gallery, in turns: what size costs a server that also runs the network.

Galleries are made up of vectors, which the product's own code publishes, so that no photo has to be embedded. Two
servers run at the same time, and are asked one after the other in every round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from rich.table import Table

from bench import load
from bench.procfs import anonymous_bytes
from bench.serving import Running, ServerFailed, running_server
from bench.storage import write_made_up
from indexer.build import WORK_NAME, StoredModel, publish_version
from indexer.delta import KnownPhoto
from indexer.embed import Usable
from indexer.items import GalleryItem
from indexer.manifest import EMBEDDINGS_NAME
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.demo.gallery import DemoGallery

CLIENTS = 32
PHOTOS_A_CLASS = 100
WARM_UP_S = 2.0
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Served:
    """A gallery and its server: answers a second and median latency of each round, anonymous memory at the end."""

    photos: int
    storage: str
    recall_at_1: float | None
    ready_s: float
    rates_per_s: list[float]
    p50_ms: list[float]
    anonymous_bytes: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A small and a large gallery, asked by so many clients."""

    clients: int
    small: Served
    large: Served

    @property
    def ratio(self) -> float:
        """The median over rounds of the large gallery's rate in that of the small one."""
        pairs = zip(self.large.rates_per_s, self.small.rates_per_s, strict=True)
        return median(large / small for large, small in pairs)


def measure(
    small: int, large: int, model: str | None, folder: Path, rounds: int, seconds: float, runtime: str = "openvino"
) -> Comparison:
    """Serves galleries of two sizes from a folder, which keeps them for the next run; raises ServerFailed."""
    indexes = [_gallery(folder / f"index-{photos}", photos, model, runtime) for photos in (small, large)]
    demo = DemoGallery.load()
    queries = tuple(str(demo.directory / query.file) for query in demo.queries)
    settings = {"RUNTIME": runtime, "LOG_LEVEL": "warning"}
    with (
        running_server(indexes[0].root, None, folder / "small.log", **settings) as first,
        running_server(indexes[1].root, None, folder / "large.log", **settings) as second,
    ):
        loads: list[list[load.Load]] = [[], []]
        for turn in range(rounds):
            for place in (0, 1) if turn % 2 == 0 else (1, 0):  # neither always goes first
                order = load.Order((first, second)[place].port, CLIENTS, seconds, queries, warm_up_s=WARM_UP_S)
                loads[place].append(_asked(order))
        told = [_told(*one) for one in zip(indexes, (first, second), loads, strict=True)]
    return Comparison(CLIENTS, *told)


def _asked(order: load.Order) -> load.Load:
    done = load.run(order)
    if done.errors or not done.answered:
        raise ServerFailed(f"{done.errors} searches failed and {done.answered} were answered; see the servers' logs.")
    return done


def _told(index: IndexDirectory, running: Running, loads: Sequence[load.Load]) -> Served:
    manifest = index.manifest(index.current())
    return Served(
        manifest.count,
        str(manifest.storage),
        manifest.recall,
        running.ready_s,
        [one.rate_per_s for one in loads],
        [one.percentile_ms(50) for one in loads],
        anonymous_bytes(running.pid),
    )


def _gallery(root: Path, photos: int, model: str | None, runtime: str) -> IndexDirectory:
    """An index of so many made-up vectors, by another process, whose memory goes with it; one that is there is kept."""
    index = IndexDirectory(root)
    if not index.versions():
        process = get_context("spawn").Process(target=publish_vectors, args=(index, photos, model, runtime))
        process.start()
        process.join()
        if process.exitcode:
            raise ServerFailed(f"The index of {photos} photos was not made; see the output above.")
    return index


def publish_vectors(index: IndexDirectory, photos: int, model: str | None, runtime: str) -> None:
    """Publishes made-up vectors as an indexer publishes those of photos, in the storage that `auto` chooses."""
    embedder = Embedder.load(model, runtime)
    vectors = index.root / WORK_NAME / EMBEDDINGS_NAME
    vectors.parent.mkdir(parents=True)
    write_made_up(vectors, photos, embedder.dim)
    usable = [_usable(number) for number in range(photos)]
    stored = StoredModel(embedder.directory, embedder.card, embedder.embedding_id, embedder.dim)
    with index.lock():
        publish_version(index, None, stored, str(index.root), _item_of, usable, [], "auto", {})


def _usable(number: int) -> Usable:
    label = f"car {number // PHOTOS_A_CLASS}"
    photo = KnownPhoto(f"{label}/{number}.jpg", label, f"{number:064x}", path=b"x")
    return Usable(photo, photo.sha256)


def _item_of(row: int, one: Usable) -> GalleryItem:
    return GalleryItem(row, one.photo.id, one.photo.label, one.sha256, b"x")


def table_of(comparison: Comparison) -> Table:
    table = Table("photos", "storage", "recall@1", "ready in", "answers a second", "p50", "memory")
    for one in (comparison.small, comparison.large):
        recall = "" if one.recall_at_1 is None else f"{one.recall_at_1:.4f}"
        rate, p50 = f"{median(one.rates_per_s):.1f}", f"{median(one.p50_ms):.0f} ms"
        memory = f"{one.anonymous_bytes / MIB:.0f} MiB"
        table.add_row(f"{one.photos:,}", one.storage, recall, f"{one.ready_s:.1f} s", rate, p50, memory)
    table.caption = f"{comparison.clients} clients; throughput of the large gallery in the small one's: "
    table.caption += f"{comparison.ratio:.2f}"
    return table
