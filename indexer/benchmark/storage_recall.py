"""What a storage that rounds vectors costs, measured on the vectors themselves: recall@1 against fp32."""

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
"""Photos from which such a share can be told from 1."""

MAX_QUERIES = 2_048
QUERIES_A_CALL = 256


@dataclass(frozen=True, slots=True)
class Recall:
    """The share of queries whose nearest row is as near as fp32's, and how many were asked."""

    share: float
    queries: int


def measured_recall(embeddings: Embeddings, store: VectorStore, most: int = MAX_QUERIES) -> Recall:
    """Recall@1 of a store of unit rows float32 (n, D) against fp32, leave-one-out.

    Up to `most` rows, evenly spread, are queries as they were before they were stored; their own row is left out. An
    answer counts when it is fp32's row, or a row whose fp32 score is the same: a copy of a photo is as good as the
    photo. A row that is worse by however little does not. 1 where there is nothing to compare.
    """
    count = len(embeddings)
    if count < 2:
        return Recall(1.0, 0)
    chosen = np.linspace(0, count - 1, min(count, most)).astype(np.int64)
    exact = FaissStore.create(embeddings)
    agreed = 0
    for own in np.split(chosen, range(QUERIES_A_CALL, len(chosen), QUERIES_A_CALL)):
        queries = embeddings[own]
        best = exact.search(queries, 1, exclude=own).scores
        found = store.search(queries, 1, exclude=own).rows
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
