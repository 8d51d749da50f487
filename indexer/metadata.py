"""Metadata of a gallery: typed columns, their tables in `items.sqlite`, and what of them passes a filter.

    columns   position, name, kind
    metadata  row of the vector store, c0, c1, ...: a cell of each column, NULL where it is empty

A gallery without metadata has neither table.
"""

import json
import math
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

import numpy as np

from model.errors import ManifestInvalid
from model.spreadsheet import MAX_COLUMNS
from model.types import Rows

Kind = Literal["text", "number", "date"]
Value = int | float | str
KINDS: tuple[Kind, ...] = get_args(Kind)

INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
"""No zeros in front: "01067" is a postcode or a part number."""

DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]+)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
INT64 = range(-(2**63), 2**63)
SQL_TYPES = {"text": "TEXT", "number": "NUMERIC", "date": "TEXT"}
STORED_AS = {"text": "'text'", "number": "'integer', 'real'", "date": "'text'"}
LARGEST = 1.7976931348623157e308


@dataclass(frozen=True, slots=True)
class Column:
    """A column of metadata, by the name that filters use."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of a whole gallery: its columns, and the cells of each row that has any, None where one is empty."""

    columns: tuple[Column, ...]
    cells: dict[int, list[Value | None]]

    @classmethod
    def of(cls, photos: Sequence[Mapping[str, str]]) -> "Metadata":
        """Types each column of the raw cells of all photos, in row order, by all its cells that are not empty.

        Raises ManifestInvalid for too many columns.
        """
        names = list(dict.fromkeys(name for cells in photos for name in cells))
        if len(names) > MAX_COLUMNS:
            raise ManifestInvalid(
                f"The gallery and the log of changes have {len(names)} columns of metadata, and {MAX_COLUMNS} are the "
                "most; take some from photos.csv, or put photos again without them."
            )
        columns = tuple(Column(name, kind_of([cells[name] for cells in photos if cells.get(name)])) for name in names)
        typed: dict[int, list[Value | None]] = {}
        for row, cells in enumerate(photos):
            if any(cells.values()):
                typed[row] = [value_as(cells.get(column.name, ""), column.kind) for column in columns]
        return cls(columns, typed)

    @property
    def content(self) -> list[object]:
        """What the hash of a version's content takes in: nothing where there is no metadata."""
        if not self.columns:
            return []
        return [[[column.name, column.kind] for column in self.columns], list(self.cells.items())]


def number(text: str) -> int | float | None:
    """The number that a text is; None for what is none, is not finite, or is an integer above 64 bits.

    >>> number("19999"), number("1.5e3"), number("007"), number("1e999")
    (19999, 1500.0, None, None)
    """
    if INTEGER.fullmatch(text):
        return int(text) if len(text) <= 20 and int(text) in INT64 else None
    if not DECIMAL.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def is_date(text: str) -> bool:
    """True for a date in the form YYYY-MM-DD."""
    try:
        return bool(DATE.fullmatch(text) and date.fromisoformat(text))
    except ValueError:
        return False


def kind_of(cells: Sequence[str]) -> Kind:
    """The kind of a column by its cells that are not empty."""
    if cells and all(number(cell) is not None for cell in cells):
        return "number"
    return "date" if cells and all(is_date(cell) for cell in cells) else "text"


def value_as(cell: str, kind: Kind) -> Value | None:
    """The value of a cell in a column of a kind; None for an empty one, and one that is not of that kind."""
    if not cell or (kind == "date" and not is_date(cell)):
        return None
    return number(cell) if kind == "number" else unicodedata.normalize("NFC", cell)


def write_metadata(database: sqlite3.Connection, metadata: Metadata) -> None:
    """Makes the tables of some metadata; raises sqlite3.Error."""
    database.execute("CREATE TABLE columns (position INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL)")
    named = ((position, column.name, column.kind) for position, column in enumerate(metadata.columns))
    database.executemany("INSERT INTO columns VALUES (?, ?, ?)", named)
    cells = ", ".join(f"c{position} {SQL_TYPES[column.kind]}" for position, column in enumerate(metadata.columns))
    database.execute(f"CREATE TABLE metadata (row INTEGER PRIMARY KEY, {cells})")
    places = ", ".join("?" * (1 + len(metadata.columns)))
    rows = ([row, *cells] for row, cells in metadata.cells.items())
    database.executemany(f"INSERT INTO metadata VALUES ({places})", rows)  # noqa: S608  # question marks


def read_columns(database: sqlite3.Connection, photos: int) -> tuple[Column, ...]:
    """The columns of an item table, none where it has no metadata.

    Raises ValueError or sqlite3.Error for tables that `write_metadata` cannot have made for so many photos.
    """
    known = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('columns', 'metadata')"
    if not database.execute(known).fetchone()[0]:
        return ()
    found = database.execute("SELECT position, name, kind FROM columns ORDER BY position").fetchall()
    names = [name for _, name, _ in found]
    right = 0 < len(found) <= MAX_COLUMNS and [position for position, _, _ in found] == list(range(len(found)))
    if not right or len(set(names)) < len(names) or any(
        not isinstance(name, str) or kind not in KINDS for _, name, kind in found
    ):  # fmt: skip
        raise ValueError("has metadata of the wrong form")
    columns = tuple(Column(name, kind) for _, name, kind in found)
    wrong = " OR ".join(
        f"typeof(c{place}) NOT IN ('null', {STORED_AS[column.kind]})"
        + (f" OR c{place} NOT BETWEEN -{LARGEST} AND {LARGEST}" if column.kind == "number" else "")
        for place, column in enumerate(columns)
    )
    wrong = f"typeof(row) <> 'integer' OR row < 0 OR row >= {photos} OR {wrong}"
    mistyped = database.execute(f"SELECT 1 FROM metadata WHERE {wrong} LIMIT 1").fetchone()  # noqa: S608  # from above
    twice = database.execute("SELECT 1 FROM metadata GROUP BY row HAVING count(*) > 1 LIMIT 1").fetchone()
    if mistyped or twice:
        raise ValueError("has metadata of the wrong type or of photos that it has not")
    return columns


def cells_of(
    database: sqlite3.Connection, columns: Sequence[Column], ids: Iterable[str]
) -> dict[str, dict[str, Value]]:
    """Id -> the cells by column that are not empty, for those of some photos that have any."""
    query = (
        "SELECT items.id, metadata.* FROM items JOIN metadata USING (row) "
        "WHERE items.id IN (SELECT value FROM json_each(?))"
    )
    found: dict[str, dict[str, Value]] = {}
    for identity, _, *cells in database.execute(query, [json.dumps(list(ids))]):
        found[identity] = {column.name: cell for column, cell in zip(columns, cells, strict=True) if cell is not None}
    return found


def rows_where(
    database: sqlite3.Connection, condition: str, values: Sequence[Value], empty: Iterable[int] = ()
) -> Rows:
    """The rows of which a condition of `indexer.where` is true, int64 (n,), ascending.

    `empty` are the positions of columns that the table lacks.
    """
    table = "metadata"
    if lacking := "".join(f", NULL AS c{position}" for position in empty):
        table = f"(SELECT *{lacking} FROM metadata)"  # noqa: S608  # numbers
    query = f"SELECT row FROM {table} WHERE {condition} ORDER BY row"  # noqa: S608  # made of c0, c1, ... and "?"
    return np.fromiter((row for (row,) in database.execute(query, values)), np.int64)
