"""What the log of changes adds to one version of an index, in memory: photos put since, and rows that they hide.

Photos that were put have the rows after those of the version, so that of equal scores the version's own come first. A
snapshot never changes; a later one shares with it what is the same.
"""

import sqlite3
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from indexer.delta import Change
from indexer.items import GalleryItem, ItemNames, ItemTable, unknown_class
from indexer.metadata import Column, Metadata, Value, kind_of, rows_where, value_as, write_metadata
from indexer.stores.base import Neighbours
from indexer.stores.candidates import CandidateStore
from indexer.stores.faiss import FaissStore
from indexer.where import condition
from model.errors import UnknownClass, UnknownItem
from model.names import normalise_label
from model.types import Embeddings, Rows

BLOCK_ROWS = 2_048
"""Photos that were put in one store: what a new snapshot copies at most."""

EXTRA = 16
"""Rows of the version that are asked for beyond k, instead of hidden ones that may be among the nearest."""

Scores = npt.NDArray[np.float32]
VectorOf = Callable[[Change], Embeddings | None]


class Snapshot:
    """The changes after a version, up to `sequence`; safe from several threads.

    `log_rows` counts the changes, with those that later ones have replaced.
    """

    def __init__(self, items: ItemTable, names: ItemNames, sequence: int) -> None:
        """What adds nothing: the version itself, which holds the changes up to `sequence`."""
        self.sequence = sequence
        self.log_rows = 0
        self._items, self._names = items, names
        self._put: tuple[Change, ...] = ()
        self._blocks: tuple[FaissStore, ...] = ()
        """The vectors of `_put`, BLOCK_ROWS in each store but the last."""
        self._places: dict[str, int | None] = {}
        """Place in `_put` of each id that was changed, None where it was deleted."""
        self._hidden: Rows = np.empty(0, np.int64)
        """Rows of the version whose ids were changed, ascending."""
        self._lock = threading.Lock()

    def followed_by(self, changes: Sequence[Change], vector_of: VectorOf) -> "Snapshot":
        """This and later changes, in their order; a photo that has no vector float32 (D,) is left out."""
        later = Snapshot(self._items, self._names, changes[-1].sequence)
        later.log_rows = self.log_rows + len(changes)
        last = {change.id: change for change in changes}
        ordered = sorted(last.values(), key=lambda change: change.sequence)
        vectors = {name: vector_of(change) for name, change in last.items() if change.sha256 is not None}
        added = [change for change in ordered if vectors.get(change.id) is not None]
        later._put = self._put + tuple(added)
        later._blocks = _extended(self._blocks, [vectors[change.id] for change in added])  # type: ignore[misc]  # not None
        places = dict.fromkeys(last) | {change.id: len(self._put) + place for place, change in enumerate(added)}
        later._places = self._places | places
        hidden = list(self._items.rows_of_ids(list(last)).values())
        later._hidden = np.union1d(self._hidden, np.array(hidden, np.int64))
        return later

    def differences(self, before: "Snapshot") -> tuple[Rows, Rows]:
        """The rows that came since an earlier snapshot, and those that went, int64 (n,)."""
        old = len(before._put)
        came = old + np.flatnonzero(self._alive[old:])
        went = np.flatnonzero(before._alive & ~self._alive[:old])
        return self.first + came, np.concatenate([np.setdiff1d(self._hidden, before._hidden), self.first + went])

    @property
    def first(self) -> int:
        """The row of the first photo that was put."""
        return len(self._names)

    @cached_property
    def _alive(self) -> npt.NDArray[np.bool_]:
        """Which photos that were put are still there."""
        alive = np.zeros(len(self._put), np.bool_)
        alive[[place for place in self._places.values() if place is not None]] = True
        return alive

    @cached_property
    def rows(self) -> Rows:
        """All rows that are there, int64 (n,), ascending."""
        return np.concatenate([self.shown(np.arange(self.first)), self.first + np.flatnonzero(self._alive)])

    @property
    def photos(self) -> int:
        """The number of photos that are there."""
        return self.first - len(self._hidden) + int(self._alive.sum())

    def shown(self, rows: Rows) -> Rows:
        """Those of some rows of the version, ascending, that are not hidden."""
        return np.setdiff1d(rows, self._hidden, assume_unique=True)

    def order_of(self, rows: Rows) -> Rows:
        """Numbers by which rows are listed, on every server: a row of the version, or the sequence of its change."""
        own = rows >= self.first
        numbers = rows.copy()
        numbers[own] = [self._put[place].sequence for place in (rows[own] - self.first).tolist()]
        return numbers

    # What is known of a photo.

    def by_id(self, identity: str) -> GalleryItem:
        """A photo by its id; raises UnknownItem."""
        if identity not in self._places:
            return self._items.by_id(identity)
        if (place := self._places[identity]) is None:
            raise UnknownItem("The gallery has no photo with this id.")
        change = self._put[place]
        assert change.sha256 is not None  # noqa: S101  # it was put
        return GalleryItem(self.first + place, identity, change.label, change.sha256, b"")

    def name_of(self, row: int) -> tuple[str, str]:
        """Id and class of a row, the class empty where it has none."""
        if row < self.first:
            return self._names.at(row)
        change = self._put[row - self.first]
        return change.id, change.label

    def contents(self) -> Iterator[Rows]:
        """As `ItemTable.contents`, of all rows, also those that are not there any more."""
        yield from self._items.contents()
        yield np.array([hash(one.sha256) for one in self._put], np.int64)

    def vectors(self, store: CandidateStore, rows: Rows) -> Embeddings:
        """The vectors of some rows, int64 (n,) -> float32 (n, D)."""
        found = store.vectors(np.where(rows < self.first, rows, -1))  # Milvus is not asked for -1
        for place in np.flatnonzero(rows >= self.first):
            block, number = divmod(int(rows[place]) - self.first, BLOCK_ROWS)
            found[place] = self._blocks[block].vectors(np.array([number]))[0]
        return found

    # Classes.

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Class -> its number, of the version's classes and then of new ones."""
        numbers = {label: number for number, label in enumerate(self._names.labels)}
        for change in self._put:
            if change.label:
                numbers.setdefault(change.label, len(numbers))
        return numbers

    @cached_property
    def _codes(self) -> Rows:
        """The numbers of the classes of photos that were put, -1 for none."""
        return np.array([self._numbers.get(change.label, -1) for change in self._put], np.int64)

    def codes_of(self, rows: Rows) -> Rows:
        """The numbers of the classes of some rows, -1 where there is none; new classes have numbers after the others.

        A row of -1 has none.
        """
        found = np.full(rows.shape, -1, np.int64)
        old, own = (rows >= 0) & (rows < self.first), rows >= self.first
        found[old] = self._names.codes[rows[old]]
        found[own] = self._codes[rows[own] - self.first]
        return found

    @property
    def labels(self) -> Sequence[str]:
        """The names of the classes by their numbers."""
        return tuple(self._numbers)

    def classes(self) -> dict[str, int]:
        """Class -> number of photos, in alphabetical order."""
        counted = Counter(self._items.classes())
        counted.subtract(label for _, label in map(self._names.at, self._hidden.tolist()) if label)
        counted.update(change.label for place, change in enumerate(self._put) if self._alive[place] and change.label)
        return {label: count for label, count in sorted(counted.items()) if count > 0}

    def rows_of(self, labels: Sequence[str]) -> Rows:
        """The rows of some classes, as `ItemTable.rows_of`."""
        found = [np.empty(0, np.int64)]
        for label in set(labels):
            number = self._numbers.get(label, self._numbers.get(normalise_label(label), -2))
            own = self.first + np.flatnonzero((self._codes == number) & self._alive)
            try:
                of_version = self.shown(self._items.rows_of([label]))
            except UnknownClass:
                of_version = own[:0]
            if not len(of_version) and not len(own):
                raise unknown_class(label, self.classes())
            found += [of_version, own]
        return np.unique(np.concatenate(found))

    # Metadata.

    @cached_property
    def _new_columns(self) -> tuple[Column, ...]:
        """Columns that the version lacks, with the kind that all their cells have."""
        known = {column.name for column in self._items.columns}
        cells: dict[str, list[str]] = {}
        for place, change in enumerate(self._put):
            for name, cell in change.metadata.items():
                if self._alive[place] and cell and name not in known:
                    cells.setdefault(name, []).append(cell)
        return tuple(Column(name, kind_of(texts)) for name, texts in cells.items())

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the version, and then those of photos that were put alone."""
        return (*self._items.columns, *self._new_columns)

    def metadata_of(self, ids: Sequence[str]) -> dict[str, dict[str, Value]]:
        """As `ItemTable.metadata_of`. A cell that is not of its column's kind is left out."""
        found = self._items.metadata_of([name for name in ids if name not in self._places])
        for name in ids:
            if (place := self._places.get(name)) is not None and (cells := self._cells(place)):
                found[name] = cells
        return found

    def _cells(self, place: int) -> dict[str, Value]:
        written = self._put[place].metadata
        typed = {column.name: value_as(written.get(column.name, ""), column.kind) for column in self.columns}
        return {name: value for name, value in typed.items() if value is not None}

    def rows_where(self, where: str) -> Rows:
        """The rows whose metadata pass a filter, as `ItemTable.rows_where`."""
        sql, values, _ = condition(where, self.columns)
        old = self.shown(self._items.rows_where(where, self._new_columns))
        with self._lock:
            return np.concatenate([old, self.first + rows_where(self._table, sql, values)])

    @cached_property
    def _table(self) -> sqlite3.Connection:
        """The metadata of photos that were put; made for the first filter."""
        rows: dict[int, list[Value | None]] = {}
        for place in np.flatnonzero(self._alive).tolist():
            cells = self._cells(place)
            rows[place] = [cells.get(column.name) for column in self.columns]
        database = sqlite3.connect(":memory:", check_same_thread=False)
        weakref.finalize(self, database.close)
        write_metadata(database, Metadata(self.columns, rows))
        return database

    # Searches.

    def search(
        self, store: CandidateStore, queries: Embeddings, k: int, among: Rows | None = None, like: int | None = None
    ) -> Neighbours:
        """The k nearest rows of each unit query float32 (B, D), as `VectorStore.search` of all rows that are there.

        The row `like` is left out.
        """
        old, own = self._of_version(store, queries, k, among, like), self._of_put(queries, k, among, like)
        rows, scores = np.hstack([old.rows, own.rows]), np.hstack([old.scores, own.scores])
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        return Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))

    def _of_version(
        self, store: CandidateStore, queries: Embeddings, k: int, among: Rows | None, like: int | None
    ) -> Neighbours:
        """The nearest rows of the version that are not hidden: at least k where there are so many."""
        excluded = np.full(len(queries), like) if like is not None and like < self.first else None
        if among is not None:
            shown = self.shown(among[among < self.first])
            return store.search(queries, k, among=shown, exclude_rows=excluded, threads=1)
        fetch = k + min(EXTRA, len(self._hidden))
        while True:
            found = store.search(queries, fetch, exclude_rows=excluded, threads=1)
            hidden = self._is_hidden(found.rows)
            rows, scores = np.where(hidden, -1, found.rows), np.where(hidden, -np.inf, found.scores)
            if fetch >= self.first or ((rows >= 0).sum(axis=1) >= k).all():
                return Neighbours(rows, scores.astype(np.float32))
            fetch *= 2

    def _is_hidden(self, rows: Rows) -> npt.NDArray[np.bool_]:
        if not len(self._hidden):
            return np.zeros(rows.shape, np.bool_)
        places = np.searchsorted(self._hidden, rows).clip(max=len(self._hidden) - 1)
        found: npt.NDArray[np.bool_] = self._hidden[places] == rows
        return found

    def _of_put(self, queries: Embeddings, k: int, among: Rows | None, like: int | None) -> Neighbours:
        """The nearest photos that were put: at least k where there are so many."""
        wanted = self._wanted(among, like)
        rows, scores = [np.full((len(queries), 0), -1, np.int64)], [np.full((len(queries), 0), -np.inf, np.float32)]
        for number, block in enumerate(self._blocks):
            start = number * BLOCK_ROWS
            places = np.flatnonzero(wanted[start : start + BLOCK_ROWS])
            found = block.search(queries, k, among=places, threads=1)
            rows.append(np.where(found.rows < 0, -1, self.first + start + found.rows))
            scores.append(found.scores)
        return Neighbours(np.hstack(rows), np.hstack(scores))

    def best_of_classes(
        self, store: CandidateStore, query: Embeddings, k: int, among: Rows | None = None, like: int | None = None
    ) -> tuple[Rows, Scores]:
        """The best row of each class, best first, of the k classes with the best ones, and their scores.

        `query` float32 (D,); rows without a class are left out.
        """
        codes = self._names.codes
        groups = np.full_like(codes, -1)
        shown = self.shown(np.arange(self.first) if among is None else among[among < self.first])
        groups[shown] = codes[shown]
        if like is not None and like < self.first:
            groups[like] = -1
        own = np.where(self._wanted(among, like), self._codes, -1)
        parts = [(0, *store.best_of_groups(query, groups, k))]
        for number, block in enumerate(self._blocks):
            start = number * BLOCK_ROWS
            parts.append((self.first + start, *block.best_of_groups(query, own[start : start + BLOCK_ROWS], k)))
        rows = np.concatenate([first + found for first, found, _ in parts])
        scores = np.concatenate([found for _, _, found in parts])
        order = np.lexsort((rows, -scores))
        _, first = np.unique(self.codes_of(rows[order]), return_index=True)
        chosen = order[np.sort(first)[:k]]
        return rows[chosen], scores[chosen]

    def _wanted(self, among: Rows | None, like: int | None) -> npt.NDArray[np.bool_]:
        """Which photos that were put may be found."""
        wanted = self._alive.copy()
        if among is not None:
            wanted[:] = False
            wanted[among[among >= self.first] - self.first] = True
        if like is not None and like >= self.first:
            wanted[like - self.first] = False
        return wanted


def _extended(blocks: tuple[FaissStore, ...], vectors: Sequence[Embeddings]) -> tuple[FaissStore, ...]:
    """Stores with more rows; full ones are shared, and the last one is made anew."""
    if not vectors:
        return blocks
    full = blocks[:-1] if blocks and len(blocks[-1]) < BLOCK_ROWS else blocks
    rows = np.concatenate([*(block.vectors(np.arange(len(block))) for block in blocks[len(full) :]), np.stack(vectors)])
    return (
        *full,
        *(FaissStore.create(rows[start : start + BLOCK_ROWS]) for start in range(0, len(rows), BLOCK_ROWS)),
    )
