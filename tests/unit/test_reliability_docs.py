"""docs/reliability.md says where each of the 155 cases is tested: no move of a test may lose one."""

import re

import pytest

from tests.unit.test_layout import ROOT

CASES = range(1, 156)
HEADING = "## Where each case is tested"
NUMBER = re.compile(r"""(?:test_|"|\bcases? |, (?=0)|and (?=0))(\d{3})(?: to (\d{3}))?(?=[_ "),.])""", re.IGNORECASE)


def rows() -> list[tuple[list[int], str]]:
    """The table's rows: the cases, and what it says of them."""
    section = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    lines = [line.split(" | ", 1) for line in section.splitlines() if re.match(r"\| \d{3}", line)]
    return [(cases_of(cases), where) for cases, where in lines]


def cases_of(cell: str) -> list[int]:
    """[93, 94, 95, 97] for "| 093 to 095, 097"."""
    ranges = [list(map(int, re.findall(r"\d{3}", part))) for part in cell.split(",")]
    return [case for ends in ranges for case in range(ends[0], ends[-1] + 1)]


def numbers_in(path: str) -> set[int]:
    """The case numbers that a file names: `test_058_...`, "013 GIF of 2 frames", "cases 081 to 085 and 091"."""
    found = NUMBER.findall((ROOT / path).read_text(encoding="utf-8"))
    return {number for first, last in found for number in range(int(first), int(last or first) + 1)}


def test_the_table_has_every_case_once() -> None:
    assert sorted(case for cases, _ in rows() for case in cases) == list(CASES)


@pytest.mark.parametrize(("cases", "where"), rows(), ids=lambda value: str(value)[:40])
def test_the_files_of_a_row_exist_and_name_its_cases(cases: list[int], where: str) -> None:
    files = re.findall(r"`(tests/[\w/.-]+\.py)`", where)
    if not files:
        assert len(where) > 20, "a case without a test needs a reason"
        return
    assert [path for path in files if not (ROOT / path).is_file()] == []
    assert set(cases) - {number for path in files for number in numbers_in(path)} == set()
