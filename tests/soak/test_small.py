"""Every long run in small: it runs, and keeps its promises."""

import pytest

from tests.soak.__main__ import RUNS, measure


@pytest.mark.parametrize("name", RUNS)
def test_a_long_run_in_small_keeps_its_promises(name: str) -> None:
    figures = measure(name, "small")
    assert figures
    assert [figure for figure in figures if not figure.kept] == []
