"""How a gallery's vectors are stored: what was asked for, or by `auto` what its size and its measured recall allow."""

from collections.abc import Callable
from typing import Any, TypeVar

from indexer.benchmark.storage_recall import (
    MIN_MEASURED,
    MIN_RECALL_OF_LISTS,
    Recall,
    Sample,
    recall_of,
    refuse_lossy,
    sampled,
)
from indexer.memory import available_bytes
from indexer.stores.base import VectorStore
from indexer.stores.faiss import FaissStore, gpus
from indexer.stores.ivf import IvfStore
from indexer.stores.originals import Originals
from indexer.stores.precision import CHOSEN, Storage
from model.errors import StorageTooLossy

LISTS_FROM = 200_000
"""Photos above which `auto` takes inverted lists: below, comparing all rows takes a few milliseconds."""

FIRST_SHARE = 256
"""Calibration begins with reading one list of so many."""

Store = TypeVar("Store", bound=VectorStore)


def create_store(originals: Originals, choice: str) -> tuple[FaissStore | IvfStore, dict[str, Any]]:
    """Makes a store of all vectors, and its recipe with the measured recall; raises StorageTooLossy."""
    automatic = choice == "auto"
    wanted = _by_preference(len(originals), originals.matrix.shape[1]) if automatic else [Storage(choice)]
    chosen = {CHOSEN: "auto"} if automatic else {}
    sample = sampled(originals) if wanted[0].lossy else None
    for storage in wanted:
        if sample is None or not storage.lossy:
            return FaissStore.create(originals.matrix, storage), {**storage.recipe, **chosen}
        store, recall = create_measured(originals, storage, sample)
        try:
            refuse_lossy(storage, recall)
        except StorageTooLossy:
            if not automatic:
                raise
            continue
        lists = store.lists._asdict() if isinstance(store, IvfStore) else {}
        measured = {"recall_at_1": recall.share, "queries": recall.queries}
        return store, {**storage.recipe, **lists, **measured, **chosen}
    raise AssertionError("auto ends with fp32")


def _by_preference(count: int, dim: int) -> list[Storage]:
    """What `auto` tries; the last loses nothing."""
    # With fewer photos a recall of 0.999 cannot be told from 1, and search is fast anyway. On a GPU FAISS is used for
    # fp32 only.
    if count < MIN_MEASURED or gpus():
        return [Storage.fp32]
    # A server that switches versions holds two of them.
    short = 2 * Storage.fp16.row_bytes(dim) * count > available_bytes()
    lists = [Storage.ivf_rabitq] if count > LISTS_FROM else []
    return [*lists, *([Storage.sq8] if short else []), Storage.fp16, Storage.fp32]


def create_measured(originals: Originals, storage: Storage, sample: Sample) -> tuple[FaissStore | IvfStore, Recall]:
    """Makes a store of all vectors and measures its recall; reads as many inverted lists as needed, at most half."""
    if storage is not Storage.ivf_rabitq:
        flat = FaissStore.create(originals.matrix, storage)
        return flat, recall_of(flat, originals, sample)
    store = IvfStore.create(originals, held_out=sample.rows)
    return calibrated(store.with_nprobe, store.lists.nlist, originals, sample)


def calibrated(
    with_nprobe: Callable[[int], Store], nlist: int, originals: Originals, sample: Sample
) -> tuple[Store, Recall]:
    """A store that reads as many of its lists as its measured recall needs, at most half, and that recall."""

    def reading(nprobe: int) -> tuple[Store, Recall]:
        candidate = with_nprobe(nprobe)
        return candidate, recall_of(candidate, originals, sample)

    nprobe = max(1, nlist // FIRST_SHARE)
    chosen = reading(nprobe)
    while chosen[1].share < MIN_RECALL_OF_LISTS and 2 * nprobe <= nlist // 2:
        nprobe *= 2
        chosen = reading(nprobe)
    # Half as many were too few; perhaps a quarter or an eighth less suffice.
    for fewer in (nprobe // 4, nprobe // 8) if chosen[1].share >= MIN_RECALL_OF_LISTS else ():
        if fewer and (between := reading(nprobe - fewer))[1].share >= MIN_RECALL_OF_LISTS:
            nprobe, chosen = nprobe - fewer, between
    return chosen
