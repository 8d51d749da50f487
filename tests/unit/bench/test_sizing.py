"""What a gallery costs is measured on a real server, over a version that verifies like any other."""

from pathlib import Path

import pytest
from rich.console import Console

from bench.sizing import Size, measure, middle, publish_made_up, table_of
from indexer.versions import IndexDirectory
from model.embedder import Embedder


def test_a_made_up_gallery_is_a_version_like_any_other(tmp_path: Path, fake_embedder: Embedder) -> None:
    index = IndexDirectory(tmp_path)
    publish_made_up(index, fake_embedder, 250)
    manifest = index.verify(index.current())
    assert (manifest.count, manifest.dim, manifest.gallery["classes"]) == (250, 64, 3)


@pytest.mark.slow
def test_a_server_is_measured_on_the_cores_it_is_held_to() -> None:
    (size,) = measure([120], [1], seconds=0.5)
    assert (size.items, size.cores) == (120, 1)
    assert 120 * 512 * 4 < size.disk_bytes < 2 * 120 * 512 * 4
    assert 50 * 2**20 < size.memory_bytes < 2 * 2**30
    assert size.photos_per_s > 0
    assert size.ready_s > 0
    assert size.search_ms > 0


def test_the_median_run_of_each_size_is_told_whole() -> None:
    runs = [[Size(10, 1, 1, run, 1.0, 1.0, rate)] for run, rate in ((1, 30.0), (2, 10.0), (3, 20.0))]
    (chosen,) = middle(runs)
    assert (chosen.memory_bytes, chosen.photos_per_s) == (3, 20.0)


def test_the_table_is_in_units_that_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=150).print(table_of([Size(1_000_000, 2, 3 * 2**20, 2 * 2**30, 4.25, 1.234, 99.6)]))
    printed = capsys.readouterr().out
    for told in ("1,000,000", "3 MiB", "2048 MiB", "4.2 s", "1.23 ms", "100"):
        assert told in printed
