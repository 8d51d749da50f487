"""The memory of builds is measured in processes of their own and told for each photo."""

import pytest

from bench.build_memory import Growth, measure
from indexer.stores.precision import Storage


@pytest.mark.slow
def test_two_builds_are_measured() -> None:
    growth = measure(100, "resnet18", Storage.fp32)
    assert (growth.photos, growth.photos_of_the_larger, growth.vector_bytes) == (100, 200, 4 * 512)
    assert growth.peak_bytes > 10 << 20
    assert growth.larger_peak_bytes > 10 << 20


def test_growth_is_told_for_each_photo_more() -> None:
    assert Growth(100, 50_000, 200, 80_000, 2_048).bytes_a_photo == 300
