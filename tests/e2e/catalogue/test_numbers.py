"""Every case of the catalogue has a test with its number, or docs/reliability.md says why it has none."""

import re

import pytest

from tests.unit.test_layout import ROOT

CASES = range(1, 156)
ROW = re.compile(r"^\| (?P<numbers>\d{3}(?:(?: to |, )\d{3})*) \| (?P<place>[^|]+) \|", re.MULTILINE)
SECTION = "## Where each case is tested"


def rows() -> list[tuple[list[int], str]]:
    """The numbers of each row of the table, and what it says of them."""
    text = (ROOT / "docs/reliability.md").read_text()
    table = text.partition(SECTION)[2].partition("\n## ")[0]
    return [(list(numbers_of(found["numbers"])), found["place"]) for found in ROW.finditer(table)]


def numbers_of(text: str) -> list[int]:
    """ "001 to 003, 007" -> 1, 2, 3, 7."""
    found: list[int] = []
    for part in text.split(", "):
        first, _, last = part.partition(" to ")
        found += range(int(first), int(last or first) + 1)
    return found


def test_the_table_has_every_case_once() -> None:
    told = [number for numbers, _ in rows() for number in numbers]
    assert sorted(told) == list(CASES)


@pytest.mark.parametrize(("numbers", "place"), rows(), ids=lambda value: str(value)[:40])
def test_a_case_stands_where_the_table_says(numbers: list[int], place: str) -> None:
    files = re.findall(r"`(tests/[\w/.-]+)`", place)
    if not files:
        assert len(place) > 20, "a case without a test needs a reason"
        return
    text = "".join((ROOT / file).read_text() for file in files)
    written = set(map(int, re.findall(r"(?<!\d)(\d{3})(?!\d)", text)))
    assert [number for number in numbers if number not in written] == []
