"""Typed metadata: kinds of columns, their tables, and a build that publishes a changed price."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexer.build import build_index
from indexer.items import GalleryItem, ItemTable, write_items
from indexer.metadata import Column, Metadata, Value
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import IndexInvalid
from tests.support.photos import car_photo

ITEMS = [GalleryItem(row, f"a/{row}.jpg", "a", f"{row}", b"x") for row in range(3)]
PHOTOS = [{"price": "5", "make": "Kia"}, {}, {"price": "", "make": "Audi"}]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["19999", "", "-5"], "number", [19999, None, -5]),
        (["1.5", "2", "1e3", ".5"], "number", [1.5, 2, 1000.0, 0.5]),
        (["9223372036854775807", "-9223372036854775808"], "number", [2**63 - 1, -(2**63)]),
        (["01067", "5"], "text", ["01067", "5"]),
        (["9223372036854775808"], "text", ["9223372036854775808"]),
        (["1", "n/a"], "text", ["1", "n/a"]),
        (["1,5"], "text", ["1,5"]),
        (["1e999"], "text", ["1e999"]),
        (["NaN", "inf"], "text", ["NaN", "inf"]),
        (["2018-12-31", "", "2020-02-29"], "date", ["2018-12-31", None, "2020-02-29"]),
        (["2018-02-30"], "text", ["2018-02-30"]),
        (["2018-12-31", "2018"], "text", ["2018-12-31", "2018"]),
        (["20181231"], "number", [20181231]),
        (["31.12.2018"], "text", ["31.12.2018"]),
        (["S\u030ckoda"], "text", ["Škoda"]),
        (["", ""], "text", [None, None]),
    ],
)
def test_a_column_is_of_the_kind_of_all_its_cells(
    tmp_path: Path, cells: list[str], kind: str, values: list[Value | None]
) -> None:
    items = [GalleryItem(row, str(row), "a", "0", b"x") for row in range(len(cells))]
    write_items(tmp_path / "items.sqlite", items, Metadata.of([{"x": cell} for cell in cells]))
    table = ItemTable(tmp_path / "items.sqlite")
    assert [(column.name, column.kind) for column in table.columns] == [("x", kind)]
    found = table.metadata_of([item.id for item in items])
    assert [found.get(item.id, {}).get("x") for item in items] == values
    table.close()


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    write_items(tmp_path / "items.sqlite", ITEMS, Metadata.of(PHOTOS))
    return tmp_path / "items.sqlite"


def test_cells_come_back_by_id_without_the_empty_ones(table_file: Path) -> None:
    table = ItemTable(table_file)
    assert table.columns == (Column("price", "number"), Column("make", "text"))
    assert table.metadata_of(["a/2.jpg", "a/0.jpg", "a/1.jpg", "nobody"]) == {
        "a/0.jpg": {"price": 5, "make": "Kia"},
        "a/2.jpg": {"make": "Audi"},
    }
    assert table.metadata_of([]) == {}
    assert table.all() == ITEMS
    table.close()


FORGERIES = {
    "text in a column of numbers": "UPDATE metadata SET c0 = 'x'",
    "an infinite number": "UPDATE metadata SET c0 = 9e999",
    "bytes in a column of text": "UPDATE metadata SET c1 = x'ff'",
    "a row that the gallery has not": "UPDATE metadata SET row = 3 WHERE row = 0",
    "a negative row": "UPDATE metadata SET row = -1 WHERE row = 0",
    "a row twice": "CREATE TABLE m AS SELECT * FROM metadata UNION ALL SELECT * FROM metadata; DROP TABLE metadata; "
    "ALTER TABLE m RENAME TO metadata",
    "an unknown kind": "UPDATE columns SET kind = 'colour'",
    "a name twice": "UPDATE columns SET name = 'x'",
    "a name of bytes": "UPDATE columns SET name = x'ff' WHERE position = 0",
    "a gap between columns": "UPDATE columns SET position = 5 WHERE position = 1",
    "a column less": "ALTER TABLE metadata DROP COLUMN c1",
    "no columns": "DELETE FROM columns",
    "no table of columns": "DROP TABLE columns",
    "no cells": "DROP TABLE metadata",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_metadata_of_the_wrong_form_is_refused(table_file: Path, forgery: str) -> None:
    with closing(sqlite3.connect(table_file)) as database, database:
        database.executescript(forgery)
    with pytest.raises(IndexInvalid, match=r"items\.sqlite (has metadata|is not an item table)"):
        ItemTable(table_file)


def write_set(root: Path, rows: str) -> Path:
    root.mkdir(exist_ok=True)
    for kind, name in enumerate(("1.jpg", "2.jpg", "3.jpg")):
        (root / name).write_bytes(car_photo(kind))
    (root / "cars.csv").write_text(f"path,class,price\n{rows}")
    return root / "cars.csv"


@pytest.mark.parametrize(
    ("rows", "embedded", "changed"),
    [
        ("1.jpg,a,5\n2.jpg,b,\n3.jpg,b,7\n", 0, False),
        ("3.jpg,b,7\n2.jpg,b, \n1.jpg,a,5\n", 0, False),
        ("1.jpg,a,6\n2.jpg,b,\n3.jpg,b,7\n", 0, True),
        ("1.jpg,a,5\n2.jpg,b,\n3.jpg,b,n/a\n", 0, True),
    ],
    ids=["the same", "another order", "another price", "another kind"],
)
def test_a_changed_cell_publishes_a_version_and_embeds_nothing(
    tmp_path: Path, fake_embedder: Embedder, rows: str, embedded: int, changed: bool
) -> None:
    index = IndexDirectory(tmp_path / "index")
    first = build_index(write_set(tmp_path / "set", "1.jpg,a,5\n2.jpg,b,\n3.jpg,b,7\n"), index, fake_embedder)
    assert (first.embedded, first.columns) == (3, (Column("price", "number"),))
    again = build_index(write_set(tmp_path / "set", rows), index, fake_embedder)
    assert (again.embedded, again.changed) == (embedded, changed)


def test_a_gallery_without_metadata_has_the_version_that_it_always_had(
    tmp_path: Path, gallery: Path, fake_embedder: Embedder
) -> None:
    index = IndexDirectory(tmp_path / "index")
    built = build_index(gallery, index, fake_embedder)
    assert built.columns == ()
    table = ItemTable(index.path_of(built.version) / "items.sqlite")
    assert (table.columns, table.metadata_of(["car 1/0.jpg"])) == ((), {})
    table.close()
