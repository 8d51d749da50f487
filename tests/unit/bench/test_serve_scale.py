"""Two galleries of made-up vectors are published as an indexer does it, and their servers are compared in turns."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench.serve_scale import Comparison, Served, measure, publish_vectors, table_of
from indexer.versions import IndexDirectory
from service.engine import Engine


def test_vectors_are_published_as_an_index_that_a_server_loads(tmp_path: Path, fake_model: Path) -> None:
    index = IndexDirectory(tmp_path / "index")
    publish_vectors(index, 1_200, str(fake_model), "fake")
    engine = Engine.load(index, runtime="fake")
    assert (engine.manifest.count, engine.manifest.gallery["classes"]) == (1_200, 12)
    assert engine.decider is not None
    (nearest,) = engine.store.search(engine.store.vectors(np.array([7])), 1).rows[0]
    assert engine.names.at(int(nearest)) == ("car 0/7.jpg", "car 0")


@pytest.mark.slow
def test_servers_of_two_galleries_are_asked_in_turns(tmp_path: Path) -> None:
    compared = measure(200, 400, "resnet18", tmp_path, rounds=2, seconds=0.5)
    assert [(one.photos, len(one.rates_per_s)) for one in (compared.small, compared.large)] == [(200, 2), (400, 2)]
    assert compared.ratio > 0
    assert all(one.anonymous_bytes > 10 << 20 for one in (compared.small, compared.large))
    kept = IndexDirectory(tmp_path / "index-400").current()
    measure(200, 400, "resnet18", tmp_path, rounds=1, seconds=0.2)
    assert IndexDirectory(tmp_path / "index-400").current() == kept


def test_the_ratio_is_the_median_over_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    small = Served(11_000, "fp16", 1.0, 2.0, [100.0, 200.0, 100.0], [10.0, 12.0, 14.0], 150 << 20)
    large = Served(1_000_000, "ivf-rabitq", 0.9912, 20.0, [90.0, 100.0, 85.0], [11.0, 12.0, 13.0], 400 << 20)
    compared = Comparison(32, small, large)
    assert compared.ratio == 0.85  # 0.9, 0.5 and 0.85
    Console(width=120).print(table_of(compared))
    printed = capsys.readouterr().out
    for told in ("1,000,000", "ivf-rabitq", "0.9912", "90.0", "12 ms", "400 MiB", "32 clients", "0.85"):
        assert told in printed
