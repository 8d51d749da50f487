"""The rule for memory finds what grows and passes over what only goes up and down."""

import numpy as np
import pytest

from tests.soak.memory import Sample, growth_of

MB = 1_000_000


def samples(leak_bytes: float, noise_bytes: float, seed: int, spike_bytes: float = 0) -> list[Sample]:
    """A process of 250 MB that answers 100,000 requests."""
    noise = np.random.default_rng(seed).normal(0, noise_bytes, 200)
    made = [Sample(500 * at, int(250 * MB + leak_bytes * 500 * at + noise[at])) for at in range(200)]
    made[150] = Sample(made[150].answers, made[150].resident_bytes + int(spike_bytes))
    return made


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("leak_bytes", "found"), [(0, False), (50, False), (1024, True), (4096, True)])
def test_a_leak_is_found_and_noise_is_none(leak_bytes: float, found: bool, seed: int) -> None:
    assert growth_of(samples(leak_bytes, 3 * MB, seed)).leaks(200, 200 * MB) is found


def test_a_single_peak_is_no_growth_but_may_be_too_high() -> None:
    growth = growth_of(samples(0, 0, 0, spike_bytes=60 * MB))
    assert not growth.leaks(200, 100 * MB)
    assert growth.leaks(200, 50 * MB)


def test_a_line_without_noise_is_its_slope() -> None:
    growth = growth_of(samples(1000, 0, 0))
    assert [growth.low, growth.high] == pytest.approx([1000, 1000], abs=0.1)
