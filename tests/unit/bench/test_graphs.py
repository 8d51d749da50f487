"""HNSW graphs are measured beside our storage, on the same vectors."""

from pathlib import Path

import numpy as np
import pytest

from bench.graphs import Graph, GraphStore, measure
from bench.storage import write_made_up

pytestmark = pytest.mark.slow  # hnswlib is in the full set alone


@pytest.mark.parametrize("kind", list(Graph))
def test_a_graph_finds_each_row_and_leaves_it_out_where_that_is_asked(kind: Graph, tmp_path: Path) -> None:
    vectors = write_made_up(tmp_path / "vectors.f32", 500, 16)
    GraphStore.create(kind, vectors).write(tmp_path / "graph")
    store = GraphStore.read(kind, tmp_path / "graph", 16, 500)
    store.ef = 200
    rows = np.arange(100)
    found = store.search(vectors.at(rows), 2)
    assert (found.rows[:, 0] == rows).mean() > 0.95
    assert np.allclose(found.scores[:, 0], 1, atol=1e-3)
    assert (store.search(vectors.at(rows), 1, exclude_rows=rows).rows[:, 0] == found.rows[:, 1]).mean() > 0.95


def test_both_graphs_are_measured_at_a_recall_that_ours_have(tmp_path: Path) -> None:
    path = tmp_path / "vectors.f32"
    costs = measure(write_made_up(path, 1_000, 16), path, list(Graph), [1, 2], seconds=0)
    assert [(cost.storage.partition(",")[0], cost.queries) for cost in costs] == [
        ("hnswlib", 1), ("hnswlib", 2), ("faiss-hnsw", 1), ("faiss-hnsw", 2)
    ]  # fmt: skip
    assert all(cost.recall_at_1 >= 0.99 and cost.call_ms > 0 for cost in costs)
    assert all(cost.index_bytes > 1_000 * 16 * 4 for cost in costs)  # with the vectors in fp32
