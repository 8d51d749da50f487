"""Samplers: every row once, in equal shares, in an order that depends on seed and epoch alone."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from model.card import InputSpec
from model.training.sampler import TrainingSampler, ValidationSampler

SPEC = InputSpec(resize=40, crop=32)


@given(length=st.integers(1, 200), world_size=st.integers(1, 5), epoch=st.integers(0, 3))
def test_an_epoch_deals_rows_once_in_equal_shares(length: int, world_size: int, epoch: int) -> None:
    dealt: list[int] = []
    for rank in range(world_size):
        sampler = TrainingSampler(length, 7, rank, world_size)
        sampler.set_epoch(epoch)
        share = list(sampler)
        assert len(share) == len(sampler) == length // world_size
        assert {of for of, _ in share} <= {epoch}
        dealt += [row for _, row in share]
    assert len(set(dealt)) == len(dealt) == length - length % world_size
    assert set(dealt) <= set(range(length))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = TrainingSampler(50, seed)
        sampler.set_epoch(epoch)
        return [row for _, row in sampler]

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_rows_that_one_epoch_leaves_over_come_in_another() -> None:
    seen: Counter[int] = Counter()
    for epoch in range(20):
        for rank in range(2):
            sampler = TrainingSampler(5, 0, rank, 2)
            sampler.set_epoch(epoch)
            seen.update(row for _, row in sampler)
    assert set(seen) == set(range(5))


@given(length=st.integers(1, 200), world_size=st.integers(1, 5))
def test_validation_deals_every_row_and_pads_with_row_0(length: int, world_size: int) -> None:
    shares = [list(ValidationSampler(length, rank, world_size)) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    counts = Counter(row for share in shares for row in share)
    assert set(counts) == set(range(length))
    assert counts - Counter(range(length)) == Counter({0: -length % world_size})


def test_the_remainder_of_seven_rows_for_two_is_padded() -> None:
    assert [list(ValidationSampler(7, rank, 2)) for rank in (0, 1)] == [[0, 2, 4, 6], [1, 3, 5, 0]]
