"""The item table of an index version."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from indexer.items import GalleryItem, ItemTable, RowsByContent, sha256_bytes, write_items
from model.errors import IndexInvalid, UnknownClass, UnknownItem
from tests.support.photos import KOREAN

ITEMS = [
    GalleryItem(0, f"{KOREAN}/100%.jpg", KOREAN, sha256_bytes(b"a"), f"{KOREAN}/100%.jpg".encode()),
    GalleryItem(1, "%FF%FE/0.jpg", "\\xff\\xfe", sha256_bytes(b"b"), b"\xff\xfe/0.jpg"),
    GalleryItem(2, "Zebra/0.jpg", "Zebra", sha256_bytes(b"a"), b"Zebra/0.jpg"),
    GalleryItem(3, "apple/'; --.jpg", "apple", sha256_bytes(b"c"), b"apple/'; --.jpg"),
    GalleryItem(4, "z/1.jpg", KOREAN, sha256_bytes(b"d"), b"z/1.jpg"),
]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[ItemTable]:
    """`ITEMS`, written and read again."""
    write_items(tmp_path / "items.sqlite", ITEMS)
    opened = ItemTable(tmp_path / "items.sqlite")
    yield opened
    opened.close()


def test_items_come_back_whatever_bytes_their_paths_are_made_of(table: ItemTable) -> None:
    assert len(table) == 5
    assert table.all() == ITEMS
    assert os.fsencode(os.fsdecode(table.by_id("%FF%FE/0.jpg").path)) == b"\xff\xfe/0.jpg"


def test_names_in_memory_are_those_of_the_table(table: ItemTable) -> None:
    names = table.names()
    assert [names.at(row) for row in range(len(names))] == [(item.id, item.label) for item in ITEMS]
    with pytest.raises(IndexError):
        names.at(5)


def test_classes_are_counted(table: ItemTable) -> None:
    assert list(table.classes().items()) == [("Zebra", 1), ("\\xff\\xfe", 1), ("apple", 1), (KOREAN, 2)]


@pytest.mark.parametrize(
    ("labels", "rows"), [([KOREAN], [0, 4]), (["apple", KOREAN], [0, 3, 4]), (["Zebra", "Zebra"], [2]), ([], [])]
)
def test_rows_of_classes_are_ascending(table: ItemTable, labels: list[str], rows: list[int]) -> None:
    assert table.rows_of(labels).tolist() == rows


def test_a_class_with_blanks_in_an_old_version_is_found_as_it_is_written(tmp_path: Path) -> None:
    labels = [" Audi", "Audi", " Kia"]
    items = [GalleryItem(row, str(row), label, "0" * 64, b"x") for row, label in enumerate(labels)]
    write_items(tmp_path / "items.sqlite", items)
    table = ItemTable(tmp_path / "items.sqlite")
    found = [table.rows_of([asked]).tolist() for asked in (" Audi", "Audi", "Audi ", " Kia")]
    assert found == [[0], [1], [1], [2]]
    assert table.rows_of(["Audi", "Audi "]).tolist() == [1]
    table.close()


def test_an_unknown_class_is_refused_without_repeating_it(table: ItemTable) -> None:
    with pytest.raises(UnknownClass, match="no class of that name"):
        table.rows_of(["apple", "Tico"])


@pytest.mark.parametrize("identity", ["", "nobody", "apple/'; DROP TABLE items; --"])
def test_an_unknown_id_is_refused(table: ItemTable, identity: str) -> None:
    with pytest.raises(UnknownItem):
        table.by_id(identity)
    assert len(table.all()) == 5


def test_threads_may_read_at_once(table: ItemTable) -> None:
    def read(turn: int) -> list[GalleryItem]:
        return [table.by_id(ITEMS[turn % 5].id), table.by_id(ITEMS[turn % 5].id), *table.all()]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(read, range(200)))
    assert all(answer == [ITEMS[turn % 5]] * 2 + ITEMS for turn, answer in enumerate(answers))


def test_reading_leaves_no_file_beside_the_table(table: ItemTable, tmp_path: Path) -> None:
    table.all()
    assert [path.name for path in tmp_path.iterdir()] == ["items.sqlite"]


def test_missing_rows_are_refused(tmp_path: Path) -> None:
    write_items(tmp_path / "items.sqlite", ITEMS[:2] + ITEMS[3:])
    with pytest.raises(IndexInvalid, match="4 rows, the last is number 4"):
        ItemTable(tmp_path / "items.sqlite")


def random_bytes(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def cut_off(path: Path) -> None:
    write_items(path, ITEMS)
    path.write_bytes(path.read_bytes()[:5000])


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE other (value)")


@pytest.mark.parametrize("make", [Path.touch, random_bytes, cut_off, other_database, Path.mkdir, lambda _path: None])
def test_what_is_not_an_item_table_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "items.sqlite")
    with pytest.raises(IndexInvalid, match="is not an item table"):
        ItemTable(tmp_path / "items.sqlite")


def test_an_id_stands_once(tmp_path: Path) -> None:
    with pytest.raises(IndexInvalid, match="UNIQUE"):
        write_items(tmp_path / "items.sqlite", [ITEMS[0], GalleryItem(1, ITEMS[0].id, "x", "0", b"x")])


def test_a_row_is_found_by_the_content_of_its_photo() -> None:
    rows = RowsByContent(ITEMS)
    found = [rows.row_of(sha256_bytes(content)) for content in (b"a", b"b", b"c", b"d", b"e")]
    assert found == [0, 1, 3, 4, None]  # the photos 0 and 2 are equal
    assert RowsByContent([]).row_of(sha256_bytes(b"a")) is None
    alike = sha256_bytes(b"a")[:16] + sha256_bytes(b"b")[16:]  # begins as a content that is there
    assert rows.row_of(alike) is None
