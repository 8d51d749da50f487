"""Filters: random ones against an evaluation in Python, worked examples, and hostile ones."""

import operator
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.items import GalleryItem, ItemTable, write_items
from indexer.metadata import Column, Metadata
from indexer.where import MAX_DEPTH, MAX_LENGTH, condition
from model.errors import InvalidFilter

PHOTOS = [
    {"price": "19999", "make": "Audi", "sold": "2018-12-31", "note": 'it\'s "new"'},
    {"price": "20000", "make": "audi", "sold": "2019-01-01", "note": ""},
    {"price": "-0.5", "make": "기아", "sold": "", "note": "b"},
    {"price": "", "make": "", "sold": "2020-02-29", "note": "a"},
    {},
    {"price": "1e3", "make": "Škoda", "sold": "0001-01-01", "note": "20000"},
]
KINDS = {"price": "number", "make": "text", "sold": "date", "note": "text"}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip
Node = tuple[Any, ...]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ItemTable]:
    """`PHOTOS`, a row each."""
    path = tmp_path_factory.mktemp("where") / "items.sqlite"
    items = [GalleryItem(row, f"a/{row}.jpg", "a", f"{row}", b"x") for row in range(len(PHOTOS))]
    write_items(path, items, Metadata.of(PHOTOS))
    opened = ItemTable(path)
    yield opened
    opened.close()


def evaluated(node: Node, photo: Mapping[str, str]) -> bool | None:
    """What a filter says of a photo, None where an empty cell leaves it open: SQL's three values."""
    if node[0] == "not":
        inner = evaluated(node[1], photo)
        return None if inner is None else not inner
    if node[0] in ("and", "or"):
        values = [evaluated(part, photo) for part in node[1]]
        decisive = node[0] == "or"
        return decisive if decisive in values else None if None in values else not decisive
    _, name, sign, value = node
    cell = photo.get(name, "")
    if not cell:
        return None
    return OPERATORS[sign](float(cell) if KINDS[name] == "number" else cell, value)


def written(node: Node, quote: str) -> str:
    """A filter as text, with no more parentheses than it needs and with keywords in any case."""
    if node[0] == "not":
        inner = written(node[1], quote)
        return f"NOT ({inner})" if node[1][0] in ("and", "or") else f"not {inner}"
    if node[0] in ("and", "or"):
        parts = [f"({written(part, quote)})" if part[0] in ("and", "or") else written(part, quote) for part in node[1]]
        return f" {node[0].upper()} ".join(parts)
    _, name, sign, value = node
    bare = KINDS[name] == "number" or (KINDS[name] == "date" and quote == "'")
    return f"{name.upper()}{sign}" + (f"{value}" if bare else quote + value.replace(quote, 2 * quote) + quote)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "price": st.sampled_from([19999, 20000, -0.5, 1000, 0]) | st.integers(-(10**25), 10**25) | st.floats(-1e6, 1e6),
    "make": st.sampled_from(["Audi", "audi", "기아", "Škoda"]) | st.text(st.characters(codec="utf-8"), max_size=5),
    "sold": st.dates().map(str) | st.sampled_from(["2018-12-31", "2019-01-01"]),
    "note": st.sampled_from(['it\'s "new"', "a", "b", "20000", "'; DROP TABLE items; --"]),
}
COMPARISONS = st.sampled_from(list(VALUES)).flatmap(
    lambda name: st.tuples(st.just("compare"), st.just(name), st.sampled_from(list(OPERATORS)), VALUES[name])
)
FILTERS: st.SearchStrategy[Node] = st.recursive(
    COMPARISONS,
    lambda inner: (
        st.tuples(st.just("not"), inner)
        | st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3))
    ),
    max_leaves=8,
)


@given(node=FILTERS, quote=st.sampled_from(["'", '"']))
def test_a_random_filter_passes_the_rows_that_it_says(table: ItemTable, node: Node, quote: str) -> None:
    text = written(node, quote)
    if len(text) > MAX_LENGTH or "\0" in text:
        return
    passing = [row for row, photo in enumerate(PHOTOS) if evaluated(node, photo)]
    assert table.rows_where(text).tolist() == passing


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("price<20000", [0, 2, 5]),
        ("price < 20000 and sold >= 2018-01-01", [0]),
        ("Price=20000 OR make='Audi'", [0, 1]),
        ("not price < 20000", [1]),
        ("not not(price<20000)", [0, 2, 5]),
        ("price < 0 or price > 19999 and make = 'audi'", [1, 2]),
        ("(price < 0 or price > 19999) and make = 'audi'", [1]),
        ("sold < '2019-01-01'", [0, 5]),
        ("sold = 2020-02-29 or price = 5", [3]),
        ('note = "it\'s ""new"""', [0]),
        ("note = 'it''s \"new\"'", [0]),
        ("make = 'S\u030ckoda'", [5]),
        ("note = '20000'", [5]),
        ("price = 1000.0", [5]),
        ("price < 99999999999999999999999", [0, 1, 2, 5]),
        ("price = 12", []),
    ],
)
def test_worked_filters(table: ItemTable, where: str, rows: list[int]) -> None:
    assert table.rows_where(where).tolist() == rows


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("", "ends too early"),
        ("price <", "ends too early"),
        ("(price < 5", "ends too early"),
        ("price", "ends too early"),
        ("make = audi", "from character 8 on; a number, a date or text in quotes belongs there"),
        ("price = NaN", "from character 9 on"),
        ("price == 5", "from character 8 on"),
        ("price < 20 000", "from character 12 on"),
        ("price ~ 5", "from character 7 on"),
        ("make = 'audi", "from character 8 on"),
        ("price < 5)", "from character 10 on"),
        ("price < 5; DROP TABLE items", "from character 10 on"),
        ("price < 5 -- and so on", "from character 11 on"),
        ("price < 1e999", "too large"),
        ("price < -1e999", "too large"),
        ("prise < 5", "no column of the name at character 1; did you mean price"),
        ("price < 5 or x = 1", "no column of the name at character 14; there are price, make, sold, note"),
        ("1 = 1", "no column of the name at character 1"),
        ("c0 = 1", "no column of the name"),
        ("기아 = 1", "no column of the name"),
        ("price = '5'", "price holds numbers; compare it with one, as in price < 20000"),
        ("price < 2018-01-01", "price holds numbers"),
        ("make = 5", "make holds text; compare it with text in quotes"),
        ("make = 2018-01-01", "make holds text"),
        ("sold < 2018", "sold holds dates; compare it with one, as in sold >= 2018-12-31"),
        ("sold < 2018-02-30", "sold holds dates"),
        ("sold < 'yesterday'", "sold holds dates"),
        ("not " * (MAX_DEPTH + 1) + "price = 1", f"nested more than {MAX_DEPTH} deep"),
        ("(price=1 or (price=2 and " * 12 + "price=3" + "))" * 12, f"nested more than {MAX_DEPTH} deep"),
        ("price = 1 or " * 40, "A filter has at most 500 characters, and this one has 520"),
        ("\0", "cannot be read|ends too early"),
        ("\ud800 = 1", "no column of the name"),
    ],
)
def test_a_filter_that_cannot_be_used_says_where_and_why(table: ItemTable, where: str, sentence: str) -> None:
    with pytest.raises(InvalidFilter, match=sentence):
        table.rows_where(where)


@given(text=st.text(max_size=40) | st.text("price<=>!'\"()and ornot0.-e", max_size=60))
def test_any_text_is_a_filter_or_refused(table: ItemTable, text: str) -> None:
    try:
        rows = table.rows_where(text)
    except InvalidFilter:
        return
    assert set(rows.tolist()) <= set(range(len(PHOTOS)))


@pytest.mark.parametrize("where", ["(" * 245 + "price=1" + ")" * 245, " or ".join(["price=1"] * 45)])
def test_the_longest_filters_are_read(table: ItemTable, where: str) -> None:
    assert table.rows_where(where).tolist() == []


def test_the_deepest_filter_is_one_that_sqlite_reads(table: ItemTable) -> None:
    deep = "(price=1 or (price!=2 and " * 9 + "not price=3" + "))" * 9
    assert table.rows_where(deep).tolist() == [0, 1, 2, 5]


def test_values_are_bound_and_names_are_not_those_of_a_client() -> None:
    columns = [Column("price", "number"), Column("drop table items", "text")]
    made = condition("price < 5 and not price = 6", columns)
    assert (made.sql, made.values) == ("(c0 < ? AND NOT (c0 = ?))", (5, 6))


def test_a_gallery_without_metadata_says_so(tmp_path: Path) -> None:
    write_items(tmp_path / "items.sqlite", [GalleryItem(0, "a", "a", "0", b"a")], Metadata.of([{}]))
    with closing(sqlite3.connect(tmp_path / "items.sqlite")) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"items"}
    table = ItemTable(tmp_path / "items.sqlite")
    with pytest.raises(InvalidFilter, match="has no metadata to filter by"):
        table.rows_where("price < 5")
    table.close()


def test_threads_may_filter_at_once(table: ItemTable) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda limit: table.rows_where(f"price < {limit}").tolist(), [0, 1001, 20_001] * 30))
    assert found == [[2], [2, 5], [0, 1, 2, 5]] * 30
