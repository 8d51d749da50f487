"""Streams that work ahead of their reader keep the order and little in memory."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from model.parallel import batched, map_in_order, prefetch


def test_a_map_in_order_keeps_few_results_waiting_and_the_order() -> None:
    started: list[int] = []

    def start(number: int) -> int:
        started.append(number)
        return number

    with ThreadPoolExecutor(2) as pool:
        results = map_in_order(pool, start, range(100), buffer_size=4)
        assert next(results) == 0
        assert len(started) <= 5
        assert list(results) == list(range(1, 100))


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_batches_are_full_but_for_the_last(count: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in batched(range(count), 4)] == sizes


@pytest.mark.parametrize(("depth", "produced"), [(1, [1, 2, 3, 4]), (2, [2, 3, 4, 4]), (9, [4, 4, 4, 4])])
def test_an_item_is_handed_on_when_those_prefetched_behind_it_are_there(depth: int, produced: list[int]) -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number

    found = [(number, len(made)) for number in prefetch(map(make, range(4)), depth)]
    assert found == list(enumerate(produced))
