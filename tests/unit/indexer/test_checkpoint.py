"""The checkpoint of a build: embeddings that survive the process that made them."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from indexer.checkpoint import Checkpoint
from model.errors import IndexInvalid
from model.types import Embeddings

NAME = "embeddings.sqlite"


def vector(*values: float) -> Embeddings:
    return np.array(values, np.float32)


def test_what_was_added_is_there_after_reopening(tmp_path: Path) -> None:
    work = Checkpoint(tmp_path / "deep" / "work", 2)
    work.add({"a": vector(1, 2), "b": vector(3, 4)})
    work.close()
    again = Checkpoint(tmp_path / "deep" / "work", 2)
    found = again.get("b")
    assert found is not None
    assert found.tolist() == [3, 4]
    assert found.dtype == np.float32
    assert again.get("c") is None
    again.close()


def test_embeddings_of_another_size_are_not_used(tmp_path: Path) -> None:
    work = Checkpoint(tmp_path, 2)
    work.add({"a": vector(1, 2)})
    work.close()
    other = Checkpoint(tmp_path, 3)
    assert other.get("a") is None
    other.add({"a": vector(5, 6, 7)})
    replaced = other.get("a")
    assert replaced is not None
    assert replaced.tolist() == [5, 6, 7]
    other.close()


def test_a_batch_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    work = Checkpoint(tmp_path, 1)
    with pytest.raises(AttributeError):
        work.add({"a": vector(1), "b": None})  # type: ignore[dict-item]  # fails half-way on purpose
    assert work.get("a") is None
    work.close()
    with closing(Checkpoint(tmp_path, 1)) as again:
        assert again.get("a") is None


def random_bytes(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def damaged_pages(path: Path) -> None:
    damage(path, lambda page: bool(page))


def damaged_embeddings(path: Path) -> None:
    """What is done is known, but its embeddings cannot be read."""
    damage(path, lambda page: page[0] == TABLE_LEAF)


TABLE_LEAF = 0x0D
"""The first byte of a page of SQLite's that holds rows, not keys."""


def damage(path: Path, choose: Callable[[bytes], bool]) -> None:
    with closing(Checkpoint(path.parent, 64)) as work:
        work.add({f"{number:064}": np.ones(64, np.float32) for number in range(200)})
    data = path.read_bytes()
    pages = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    path.write_bytes(b"".join(pages[:1] + [b"\xff" * 4096 if choose(page) else page for page in pages[1:]]))


def other_columns(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE done (other)")


@pytest.mark.parametrize("make", [random_bytes, damaged_pages])
def test_a_file_that_opening_finds_damaged_is_begun_anew(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / NAME)
    with closing(Checkpoint(tmp_path, 64)) as work:
        work.add({"1" * 64: np.ones(64, np.float32)})
        assert work.get("1" * 64) is not None


@pytest.mark.parametrize("make", [damaged_embeddings, other_columns, Path.mkdir])
def test_a_file_that_cannot_be_used_is_named_in_one_sentence(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / NAME)

    def use() -> None:
        with closing(Checkpoint(tmp_path, 64)) as work:
            work.get("0" * 64)
            work.add({"1" * 64: np.ones(64, np.float32)})

    with pytest.raises(IndexInvalid, match=rf"^The unfinished work in .*{NAME} cannot be used: .*\.$"):
        use()


def test_it_is_a_dictionary_that_survives_reopening(tmp_path_factory: pytest.TempPathFactory) -> None:
    class Dictionary(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.directory = tmp_path_factory.mktemp("work")
            self.expected: dict[str, float] = {}
            self.work = Checkpoint(self.directory, 1)

        @rule(batch=st.dictionaries(st.sampled_from("abcdef"), st.floats(-1, 1, width=32), max_size=4))
        def add(self, batch: dict[str, float]) -> None:
            self.work.add({key: vector(value) for key, value in batch.items()})
            self.expected |= batch

        @rule()
        def reopen(self) -> None:
            self.work.close()
            self.work = Checkpoint(self.directory, 1)

        @invariant()
        def same(self) -> None:
            found = {key: self.work.get(key) for key in "abcdef"}
            assert {key: float(one[0]) for key, one in found.items() if one is not None} == self.expected

        def teardown(self) -> None:
            self.work.close()

    run_state_machine_as_test(Dictionary, settings=settings(max_examples=15, stateful_step_count=8, deadline=None))
