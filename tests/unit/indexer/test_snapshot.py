"""A snapshot of many changes against one store of all that is there."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from indexer.delta import Change
from indexer.items import GalleryItem, ItemTable, write_items
from indexer.snapshot import BLOCK_ROWS, Snapshot
from indexer.stores.faiss import FaissStore
from model.types import Embeddings, Rows

OLD, PUT, DIM = 900, 2 * BLOCK_ROWS + 100, 8
COPIES = 50
"""Rows that have the same vector, among the old ones and those that were put."""


class Case:
    """A version and a snapshot of many changes, made in four steps; `rows` and `store` hold what must be there."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(5)
        vectors = random.normal(size=(OLD + PUT, DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        copies = random.choice(OLD + PUT, COPIES, replace=False)
        vectors[copies] = vectors[copies[0]]
        self.queries: Embeddings = np.concatenate([vectors[copies[:1]], random.permutation(vectors)[:20]])
        labels = [f"class {number}" if number else "" for number in random.integers(0, 40, OLD + PUT)]
        items = [GalleryItem(row, f"old {row}", labels[row], "0" * 64, b"x") for row in range(OLD)]
        write_items(folder / "items.sqlite", items)
        self.items = ItemTable(folder / "items.sqlite")
        names = [f"old {number}" if number % 10 == 0 else f"new {number}" for number in range(PUT)]
        changes = [Change(n, name, labels[OLD + n], {}, "1" * 64) for n, name in enumerate(names)]
        changes += [
            Change(PUT + n, name, "", {}, None) for n, name in enumerate(["old 1", "old 2", "new 3", "new 4001"])
        ]
        self.version = FaissStore.create(vectors[:OLD])
        self.snapshot = Snapshot(self.items, self.items.names(), -1)
        for start, end in pairwise([0, 10, BLOCK_ROWS + 20, PUT, len(changes)]):
            part = changes[start:end]
            self.snapshot = self.snapshot.followed_by(part, lambda change: vectors[OLD + change.sequence])
        gone = {int(name[4:]) for name in names if name.startswith("old") and int(name[4:]) < OLD} | {1, 2}
        self.rows: Rows = np.array(sorted({*range(OLD + PUT)} - gone - {OLD + 3, OLD + 4001}))
        self.codes: Rows = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        self.codes[[label == "" for label in labels]] = -1
        self.store = FaissStore.create(vectors)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    made = Case(tmp_path_factory.mktemp("snapshot"))
    yield made
    made.items.close()


def test_all_that_is_there_is_listed(case: Case) -> None:
    assert case.snapshot.rows.tolist() == case.rows.tolist()
    assert case.snapshot.photos == len(case.rows)
    assert case.snapshot.name_of(OLD + 5) == ("new 5", case.snapshot.by_id("new 5").label)


@pytest.mark.parametrize("k", [1, 10, 100, 900])
def test_a_search_is_that_of_one_store(case: Case, k: int) -> None:
    found = case.snapshot.search(case.version, case.queries, k)
    wanted = case.store.search(case.queries, k, among=case.rows)
    assert found.rows.tolist() == wanted.rows.tolist()
    assert found.scores.tolist() == wanted.scores.tolist()


@pytest.mark.parametrize("step", [2, 7, 500])
def test_a_search_among_some_rows_without_one_is_that_of_one_store(case: Case, step: int) -> None:
    among = case.rows[::step]
    for like in (among[0], among[-1]):
        found = case.snapshot.search(case.version, case.queries[:1], 20, among, int(like))
        wanted = case.store.search(case.queries[:1], 20, among=among[among != like])
        assert found.rows.tolist() == wanted.rows.tolist()


@pytest.mark.parametrize("k", [1, 12, 60])
def test_the_best_of_classes_are_those_of_one_store(case: Case, k: int) -> None:
    groups = np.full_like(case.codes, -1)
    groups[case.rows] = case.codes[case.rows]
    for query in case.queries:
        rows, scores = case.snapshot.best_of_classes(case.version, query, k)
        wanted, best = case.store.best_of_groups(query, groups, k)
        assert (rows.tolist(), scores.tolist()) == (wanted.tolist(), best.tolist())
