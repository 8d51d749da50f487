"""What a storage costs that searches by less than the vectors: recall@1 against fp32, measured on the vectors."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from indexer.stores.base import VectorStore
from indexer.stores.exact import ExactStore
from indexer.stores.originals import Originals
from indexer.stores.precision import Storage
from model.errors import StorageTooLossy
from model.retrieval import exact_scores
from model.types import Embeddings, Rows

MIN_RECALL = 0.999
MIN_RECALL_OF_LISTS = 0.99
MIN_MEASURED = 1_000
"""Number of photos from which such a recall can be told from 1."""

MAX_QUERIES = 2_048
QUERIES_PER_CALL = 256


@dataclass(frozen=True, slots=True)
class Recall:
    """The share of queries whose nearest row is as near as fp32's, and the number of queries."""

    share: float
    queries: int


class Sample(NamedTuple):
    """Rows that are asked for their nearest other row, int64 (n,), and the exact score of that, float32 (n, 1)."""

    rows: Rows
    best: Embeddings


def sampled(originals: Originals, most: int = MAX_QUERIES) -> Sample:
    """Up to `most` rows, evenly spread, and their best scores by exact search, their own row left out."""
    count = len(originals)
    rows = np.linspace(0, count - 1, min(count, most)).astype(np.int64)
    exact = ExactStore(originals)
    # One call for all: where vectors lie in a file it is read once.
    return Sample(rows, exact.search(originals.at(rows), 1, exclude_rows=rows).scores)


def recall_of(store: VectorStore, originals: Originals, sample: Sample) -> Recall:
    """Recall@1 of a store; see `measured_recall`."""
    if len(originals) < 2:
        return Recall(1.0, 0)
    agreed = 0
    for start in range(0, len(sample.rows), QUERIES_PER_CALL):
        part = slice(start, start + QUERIES_PER_CALL)
        own, best = sample.rows[part], sample.best[part]
        queries = originals.at(own)
        found = store.search(queries, 1, exclude_rows=own).rows
        agreed += int(((exact_scores(queries, originals.at(found)) == best) & (found >= 0)).sum())
    return Recall(agreed / len(sample.rows), len(sample.rows))


def measured_recall(embeddings: Embeddings, store: VectorStore, most: int = MAX_QUERIES) -> Recall:
    """Recall@1 of a store of unit rows float32 (n, D) against exact search, leave-one-out.

    Up to `most` rows, evenly spread and unrounded, are the queries; their own row is left out. An answer counts when
    its exact score equals the best one, so that a copy of a photo is as good as the photo. 1 for fewer than two rows.
    """
    originals = Originals(embeddings)
    return recall_of(store, originals, sampled(originals, most))


def refuse_lossy(storage: Storage, recall: Recall) -> None:
    """Raises StorageTooLossy below MIN_RECALL, for inverted lists below MIN_RECALL_OF_LISTS."""
    least = MIN_RECALL_OF_LISTS if storage is Storage.ivf_rabitq else MIN_RECALL
    if recall.share < least:
        others = {Storage.fp16: "use --storage fp32", Storage.milvus: "try another release of Milvus"}
        raise StorageTooLossy(
            f"Stored in {storage}, {recall.share:.5f} of {recall.queries} photos find the nearest photo that fp32 "
            f"finds, and {least} is the least; nothing was published: "
            f"{others.get(storage, 'use --storage fp16 or fp32')}."
        )
