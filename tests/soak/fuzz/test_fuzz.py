"""The fuzzer in small: it finds nothing in the decoder and the archive reader, and what is missing where a guard is."""

from pathlib import Path

import pytest

from tests.soak.fuzz.__main__ import fuzz
from tests.soak.fuzz.corpus import tried

SECONDS = 8
MIN_EXECUTIONS = 100
"""So few even a very slow machine manages: a fuzzer that does not run finds nothing either."""


@pytest.mark.parametrize("target", ["decode", "archive"])
def test_no_input_does_what_no_input_may(target: str, tmp_path: Path) -> None:
    outcome = fuzz(target, SECONDS, findings=tmp_path / "findings")
    assert outcome.findings == [], outcome.told
    assert outcome.executions >= MIN_EXECUTIONS
    assert outcome.covered > 0


@pytest.mark.parametrize("target", ["decode-unguarded", "archive-unguarded"])
def test_what_is_not_guarded_is_found(target: str, tmp_path: Path) -> None:
    outcome = fuzz(target, 60, findings=tmp_path / "findings")
    assert len(outcome.findings) == 1
    assert "Uncaught Python exception" in outcome.told


def test_a_file_of_a_corpus_that_does_what_it_may_not_is_named(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("good", "bad", "ugly")]

    def outcome_of(path: Path) -> int:
        if path.name == "ugly":
            raise ValueError("not caught")
        return {"good": 422, "bad": 500}[path.name]

    told, bad = tried(files, "made up", outcome_of)
    assert told.startswith("3 files made up: 1 x 422, 2 x 500")
    assert [line.split(":")[0] for line in bad] == ["bad", "ugly"]
