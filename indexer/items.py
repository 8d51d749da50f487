"""The items of an index version: `items.sqlite`, one line per row of the vector store."""

import hashlib
import json
import sqlite3
import threading
import weakref
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.metadata import Column, Metadata, Value, cells_of, read_columns, rows_where, write_metadata
from indexer.where import condition
from model.errors import IndexInvalid, UnknownClass, UnknownItem
from model.names import near_label, normalise_label
from model.types import Rows

ROWS_PER_READ = 5_000
SCHEMA = """
CREATE TABLE items (
    row INTEGER PRIMARY KEY,    -- row of the vector store, from 0
    id TEXT NOT NULL UNIQUE,
    class TEXT,                 -- NFC; NULL for a photo without a class
    sha256 TEXT NOT NULL,       -- of the photo's bytes as they were embedded
    path BLOB NOT NULL,         -- raw bytes, relative to the gallery's root
    stamp BLOB                  -- of indexer.stamps, when the file was read; older tables lack it
);
CREATE INDEX items_by_class ON items (class);
"""
# Tables made by this schema always pass these checks; a foreign table may lack its constraints.
TYPES = {"row": "'integer'", "id": "'text'", "class": "'text', 'null'", "sha256": "'text'", "path": "'blob'"}
MISTYPED = " OR ".join(f"typeof({column}) NOT IN ({types})" for column, types in TYPES.items())
COUNTS = f"SELECT count(*), min(row), max(row), total({MISTYPED}) FROM items"  # noqa: S608  # columns from above
DUPLICATES = (
    "SELECT 1 FROM items GROUP BY id HAVING count(*) > 1 UNION ALL SELECT 1 FROM items GROUP BY row HAVING count(*) > 1"
)


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """One photo of a gallery.

    `label` is empty where it has no class; `path` is relative to the gallery's root, as raw bytes. A photo that was put
    has none: it lies in the log of changes (`indexer.delta`), by its sha256. `stamp` is that of `indexer.stamps`.
    """

    row: int
    id: str
    label: str
    sha256: str
    path: bytes
    stamp: bytes | None = None


def sha256_bytes(data: bytes) -> str:
    """The sha256 of a photo's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def write_items(path: Path, items: Iterable[GalleryItem], metadata: Metadata | None = None) -> None:
    """Writes `items.sqlite`, not yet durably; raises IndexInvalid when it cannot."""
    try:
        # Some file systems lack the lock that SQLite takes. The file is new, and the writer has the directory's lock.
        uri = f"{path.resolve().as_uri()}?nolock=1"
        with closing(sqlite3.connect(uri, uri=True)) as database, database:
            database.execute("PRAGMA journal_mode = OFF")
            database.executescript(SCHEMA)
            rows = ((item.row, item.id, item.label or None, item.sha256, item.path, item.stamp) for item in items)
            database.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", rows)
            if metadata is not None and metadata.columns:
                write_metadata(database, metadata)
    except sqlite3.Error as problem:
        raise IndexInvalid(f"{path} cannot be written: {problem}.") from problem


def unknown_class(label: str, known: Collection[str]) -> UnknownClass:
    """The error for a class with no photo, with the known class that is meant where one is near."""
    nearest = near_label(label, known)
    meant = f' did you mean "{nearest}"?' if nearest else ""
    return UnknownClass(
        f"The gallery has no class of that name;{meant} GET /gallery/classes and carsearch classes list those "
        "there are."
    )


class ItemTable:
    """Reads `items.sqlite` of a published version, which never changes; safe from several threads."""

    def __init__(self, path: Path) -> None:
        self._lock, self._filter_lock = threading.Lock(), threading.Lock()
        self._classes: dict[str, int] = {}
        self._filters = self._database = self._connected(path)
        try:
            (self._count, first, last, mistyped), duplicate = self._row(COUNTS), self._row(DUPLICATES)
            self.stamped = bool(self._row("SELECT count(*) FROM pragma_table_info('items') WHERE name = 'stamp'")[0])
            """False for a table from before files were stamped."""
            self.columns = read_columns(self._database, self._count)
        except sqlite3.Error as problem:
            self.close()
            raise IndexInvalid(f"{path} is not an item table: {problem}.") from problem
        except ValueError as problem:
            self.close()
            raise IndexInvalid(f"{path} {problem}; build the index again.") from problem
        # A filter reads a whole table; meanwhile the other connection answers.
        if self.columns:
            self._filters = self._connected(path)
        wrong = None
        if self._count and (first, last) != (0, self._count - 1):
            wrong = f"lacks rows: {self._count} rows, the last is number {last}"
        elif mistyped or duplicate:
            wrong = "has duplicate ids or values of the wrong type"
        if wrong:
            self.close()
            raise IndexInvalid(f"{path} {wrong}; build the index again.")

    def _connected(self, path: Path) -> sqlite3.Connection:
        try:
            uri = f"{path.resolve().as_uri()}?immutable=1"
            database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.Error as problem:
            raise IndexInvalid(f"{path} is not an item table: {problem}.") from problem
        # A connection is in a reference cycle; its file would stay open until the next garbage collection.
        weakref.finalize(self, database.close)
        return database

    def _row(self, query: str) -> Any:
        return self._database.execute(query).fetchone()

    def __len__(self) -> int:
        return int(self._count)

    def close(self) -> None:
        self._filters.close()
        self._database.close()

    def names(self) -> "ItemNames":
        """Ids and classes of all items; raises IndexInvalid when they cannot be read."""
        try:
            with self._lock:
                return ItemNames(self._database.execute("SELECT id, coalesce(class, '') FROM items ORDER BY row"))
        except sqlite3.Error as problem:
            raise IndexInvalid(f"The item table cannot be read: {problem}.") from problem

    def by_id(self, identity: str) -> GalleryItem:
        """Raises UnknownItem."""
        found = self._select("WHERE id = ?", [identity])
        if not found:
            raise UnknownItem("The gallery has no photo with this id.")
        return found[0]

    def sha256_of_unchanged(self, identity: str, path: bytes, stamp: bytes) -> str | None:
        """The sha256 of a photo's content where its file has the stamp that it had when it was read."""
        if not self.stamped:
            return None
        with self._lock:
            query = "SELECT sha256 FROM items WHERE id = ? AND path = ? AND stamp = ?"
            found = self._database.execute(query, [identity, path, stamp]).fetchone()
        return None if found is None else found[0]

    def __iter__(self) -> Iterator[GalleryItem]:
        """Every item, in row order; read in chunks, so that searches can use the table in between."""
        for start in range(0, len(self), ROWS_PER_READ):
            yield from self._select("WHERE row >= ? AND row < ? ORDER BY row", [start, start + ROWS_PER_READ])

    def all(self) -> list[GalleryItem]:
        """Every item, in row order."""
        return list(self)

    def contents(self) -> Iterator[Rows]:
        """A number for each row that copies of a file share and other photos do not: int64 (n,), in parts."""
        query = "SELECT sha256 FROM items WHERE row >= ? AND row < ? ORDER BY row"
        for start in range(0, len(self), ROWS_PER_READ):
            with self._lock:
                found = self._database.execute(query, [start, start + ROWS_PER_READ]).fetchall()
            yield np.array([hash(sha256) for (sha256,) in found], np.int64)

    def classes(self) -> dict[str, int]:
        """Class -> number of photos, in alphabetical order."""
        with self._lock:
            if not self._classes:  # it reads the whole table, which never changes
                query = "SELECT class, count(*) FROM items WHERE class IS NOT NULL GROUP BY class ORDER BY class"
                self._classes = dict(self._database.execute(query).fetchall())
            return self._classes

    def rows_of(self, labels: Sequence[str]) -> Rows:
        """The rows of some classes, int64 (n,), ascending; raises UnknownClass for a class with no photo.

        A class is looked for as it is written, and then as `normalise_label` has it: versions from before labels were
        trimmed hold others.
        """
        found: set[int] = set()
        for label in set(labels):
            rows = self._rows_of(label) or self._rows_of(normalise_label(label))
            if not rows:
                raise unknown_class(label, self.classes())
            found.update(row for (row,) in rows)
        return np.array(sorted(found), np.int64)

    def _rows_of(self, label: str) -> list[tuple[int]]:
        with self._lock:
            return self._database.execute("SELECT row FROM items WHERE class = ?", [label]).fetchall()

    def rows_of_ids(self, ids: Sequence[str]) -> dict[str, int]:
        """Id -> row, for those of some photos that are here."""
        query = "SELECT id, row FROM items WHERE id IN (SELECT value FROM json_each(?))"
        with self._lock:
            return dict(self._database.execute(query, [json.dumps(list(ids))]).fetchall())

    def rows_where(self, where: str, more: Sequence[Column] = ()) -> Rows:
        """The rows that pass a filter on their metadata, int64 (n,), ascending; raises InvalidFilter.

        The cells of `more` columns are empty here.
        """
        sql, values, _ = condition(where, [*self.columns, *more])
        if not self.columns:
            return np.empty(0, np.int64)  # no comparison with an empty cell is true
        with self._filter_lock:
            return rows_where(self._filters, sql, values, range(len(self.columns), len(self.columns) + len(more)))

    def metadata_of(self, ids: Sequence[str]) -> dict[str, dict[str, Value]]:
        """Id -> its metadata by column, for those of some photos that have any; empty cells are left out."""
        if not self.columns or not ids:
            return {}
        with self._lock:
            return cells_of(self._database, self.columns, ids)

    def _select(self, condition: str, values: Sequence[int | str]) -> list[GalleryItem]:
        with self._lock:
            columns = f"row, id, coalesce(class, ''), sha256, path, {'stamp' if self.stamped else 'NULL'}"
            query = f"SELECT {columns} FROM items {condition}"  # noqa: S608  # conditions from above
            return [GalleryItem(*row) for row in self._database.execute(query, values).fetchall()]


class ItemNames:
    """Ids and classes by row, held in memory because an answer needs a few of them and SQLite is slow.

    An item takes 12 bytes more than its id.
    """

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        ids, ends, classes = bytearray(), array("q", [0]), array("q")
        numbers: dict[str, int] = {}
        for identity, label in items:
            ids += identity.encode()
            ends.append(len(ids))
            classes.append(numbers.setdefault(label, len(numbers)) if label else -1)
        self._ids, self._ends, self._classes, self._labels = bytes(ids), ends, classes, list(numbers)

    def __len__(self) -> int:
        return len(self._classes)

    @property
    def codes(self) -> Rows:
        """The number of each row's class, int64 (n,), counted by when a class first occurs; see `labels`.

        A row without a class has -1.
        """
        return np.asarray(self._classes)  # shares its memory

    @property
    def labels(self) -> list[str]:
        """The classes by number."""
        return self._labels

    def at(self, row: int) -> tuple[str, str]:
        """Id and class of a row from 0, the class empty where it has none; raises IndexError."""
        code = self._classes[row]
        label = self._labels[code] if code >= 0 else ""
        return self._ids[self._ends[row] : self._ends[row + 1]].decode(), label


class RowsByContent:
    """Finds a row by the sha256 of its photo; a row takes 40 bytes, a sixth of what a dict of them would."""

    def __init__(self, items: Iterable[GalleryItem]) -> None:
        """Raises ValueError for a sha256 that is none."""
        digests = np.frombuffer(b"".join(bytes.fromhex(item.sha256) for item in items), ">u8").reshape(-1, 4)
        self._rows = np.argsort(digests[:, 0], kind="stable")
        self._digests = digests[self._rows]
        self._first = np.ascontiguousarray(self._digests[:, 0], np.uint64)

    def row_of(self, sha256: str) -> int | None:
        """The lowest row with this content."""
        wanted = np.frombuffer(bytes.fromhex(sha256), ">u8")
        start, end = (np.searchsorted(self._first, wanted[0].astype(np.uint64), side) for side in ("left", "right"))
        same = np.flatnonzero((self._digests[start:end] == wanted).all(axis=1))
        return int(self._rows[start + same[0]]) if len(same) else None
