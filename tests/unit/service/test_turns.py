"""How many uploads are read in a turn of the event loop, and who goes first."""

import asyncio
from collections import Counter

import pytest
import service.http.turns
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from service.http.turns import READ_IN_A_TURN, Turns


async def turns_taken(began: list[float], reads: int) -> list[list[float]]:
    """Who read in each turn of the loop: uploads of these beginnings, each of so many reads, all waiting at once."""
    turns = Turns()
    taken: list[list[float]] = []
    read = 0

    async def upload(since: float) -> None:
        nonlocal read
        for _ in range(reads):
            await turns.wait(since)
            taken[-1].append(since)
            read += 1
            await asyncio.sleep(0)  # what was asked for comes in the next turn

    uploads = [asyncio.ensure_future(upload(since)) for since in began]
    while read < reads * len(began):
        taken.append([])
        await asyncio.sleep(0)
        assert len(taken) < 100 + 10 * reads * len(began)
    for one in uploads:
        await one
    assert not turns.crowded
    return [turn for turn in taken if turn]


def run(began: list[float], reads: int) -> list[list[float]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(turns_taken(began, reads))


def test_few_uploads_are_read_in_every_turn() -> None:
    assert run([1.0, 2.0], 3) == [[1.0, 2.0]] * 3


def test_of_many_the_oldest_are_read_first_and_a_few_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.http.turns, "READ_IN_A_TURN", 2)
    assert run([5.0, 4.0, 3.0, 2.0, 1.0], 1) == [[5.0, 4.0], [1.0, 2.0], [3.0]]


@given(began=st.lists(st.integers(0, 9).map(float), min_size=1, max_size=40), reads=st.integers(1, 5))
def test_no_turn_reads_more_than_it_should_and_everybody_comes_to_an_end(began: list[float], reads: int) -> None:
    taken = run(began, reads)
    assert max(map(len, taken)) <= READ_IN_A_TURN
    assert Counter(one for turn in taken for one in turn) == Counter(began * reads)


def test_whoever_has_given_up_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait_for_turns() -> list[bool]:
        turns = Turns()
        _, late, next_one = (asyncio.ensure_future(turns.wait(since)) for since in (0.0, 1.0, 2.0))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.wait([next_one], timeout=5)
        return [late.cancelled(), next_one.done(), turns.crowded]

    monkeypatch.setattr(service.http.turns, "READ_IN_A_TURN", 1)
    assert asyncio.run(wait_for_turns()) == [True, True, False]
