"""The cost of a storage that rounds vectors: recall@1 against fp32, measured on the vectors themselves."""

from dataclasses import dataclass

import numpy as np

from indexer.stores.base import VectorStore
from indexer.stores.faiss import FaissStore
from indexer.stores.precision import Storage
from model.errors import StorageTooLossy
from model.retrieval import exact_scores
from model.types import Embeddings

MIN_RECALL = 0.999
MIN_MEASURED = 1_000
"""Number of photos from which such a recall can be told from 1."""

MAX_QUERIES = 2_048
QUERIES_PER_CALL = 256


@dataclass(frozen=True, slots=True)
class Recall:
    """The share of queries whose nearest row is as near as fp32's, and the number of queries."""

    share: float
    queries: int


def measured_recall(embeddings: Embeddings, store: VectorStore, most: int = MAX_QUERIES) -> Recall:
    """Recall@1 of a store of unit rows float32 (n, D) against fp32, leave-one-out.

    Up to `most` rows, evenly spread and unrounded, are the queries; their own row is left out. An answer counts when
    its fp32 score equals the best one, so that a copy of a photo is as good as the photo. 1 for fewer than two rows.
    """
    count = len(embeddings)
    if count < 2:
        return Recall(1.0, 0)
    chosen = np.linspace(0, count - 1, min(count, most)).astype(np.int64)
    exact = FaissStore.create(embeddings)
    agreed = 0
    for own in np.split(chosen, range(QUERIES_PER_CALL, len(chosen), QUERIES_PER_CALL)):
        queries = embeddings[own]
        best = exact.search(queries, 1, exclude_rows=own).scores
        found = store.search(queries, 1, exclude_rows=own).rows
        agreed += int((exact_scores(queries, embeddings[found]) == best).sum())
    return Recall(agreed / len(chosen), len(chosen))


def refuse_lossy(storage: Storage, recall: Recall) -> None:
    """Raises StorageTooLossy below MIN_RECALL."""
    if recall.share < MIN_RECALL:
        better = "fp32" if storage is Storage.fp16 else "fp16 or fp32"
        raise StorageTooLossy(
            f"Stored in {storage}, {recall.share:.5f} of {recall.queries} photos find the nearest photo that fp32 "
            f"finds, and {MIN_RECALL} is the least; nothing was published: use --storage {better}."
        )
