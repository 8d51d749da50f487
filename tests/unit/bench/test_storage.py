"""What each storage costs is measured on the vectors of an index or on made-up ones, and told in a table and JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.__main__ import app
from bench.storage import Cost, measure, table_of, write_made_up, write_vectors_of
from indexer.build import build_index
from indexer.stores.precision import IN_FILES
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from tests.unit.indexer.sets import write_photos


@pytest.fixture(params=list(IN_FILES))
def index(tmp_path: Path, fake_embedder: Embedder, request: pytest.FixtureRequest) -> IndexDirectory:
    photos = write_photos(tmp_path / "photos", [f"{label}/{shot}.jpg" for label in "ab" for shot in range(3)])
    made = IndexDirectory(tmp_path / "index")
    build_index(photos, made, fake_embedder, storage=request.param)
    return made


def test_the_vectors_of_an_index_are_those_before_they_were_rounded(
    index: IndexDirectory, tmp_path: Path, fake_embedder: Embedder
) -> None:
    expected = [fake_embedder.embed_photo(path.read_bytes()) for path in sorted((tmp_path / "photos").rglob("*.jpg"))]
    vectors = write_vectors_of(index, tmp_path / "vectors.f32")
    assert vectors.matrix.tobytes() == np.stack(expected).tobytes()


def test_made_up_photos_are_nearer_to_those_of_their_class_than_to_others(tmp_path: Path) -> None:
    rows = write_made_up(tmp_path / "vectors.f32", 2_000, 64).matrix
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    cosines = np.sort(rows[:200] @ rows.T, axis=1)
    assert 0.6 < np.median(cosines[:, -2]) < 0.95
    assert abs(np.median(cosines)) < 0.1


def test_every_storage_is_measured_with_every_number_of_queries(tmp_path: Path) -> None:
    path = tmp_path / "vectors.f32"
    costs = measure(write_made_up(path, 2_000, 32), path, list(IN_FILES), [1, 3], seconds=0)
    assert [(cost.storage, cost.queries) for cost in costs] == [(name, count) for name in IN_FILES for count in (1, 3)]
    assert costs[0].recall_at_1 == 1.0
    assert all(cost.call_ms > 0 and cost.rows == 2_000 and cost.anonymous_bytes > 0 for cost in costs)
    whole, half, eighth, bits = (cost.index_bytes for cost in costs[::2])
    assert 2_000 * 32 * 4 < whole < 2_000 * 32 * 4 + 500
    assert whole > half > eighth > bits
    assert [cost.nprobe is not None for cost in costs[::2]] == [False, False, False, True]


def test_the_command_measures_what_it_is_asked_for(tmp_path: Path, fake_embedder: Embedder) -> None:
    photos = write_photos(tmp_path / "photos", [f"{label}/{shot}.jpg" for label in "ab" for shot in range(3)])
    build_index(photos, tmp_path / "index", fake_embedder)
    report = tmp_path / "report.json"
    options = ["--rows", "50", "--dim", "8", "--queries", "2", "--seconds", "0", "--report", str(report)]
    asked = ["--index", str(tmp_path / "index"), "--storage", "fp32", "--storage", "sq8"]
    result = CliRunner().invoke(app, ["storage", *asked, *options])
    assert result.exit_code == 0, result.output
    told = [(cost["rows"], cost["storage"], cost["recall_at_1"]) for cost in json.loads(report.read_bytes())]
    assert told == [(6, "fp32", 1.0), (6, "sq8", 1.0), (50, "fp32", 1.0), (50, "sq8", 1.0)]


def test_vectors_have_to_come_from_somewhere() -> None:
    result = CliRunner().invoke(app, ["storage"])
    assert result.exit_code == 2
    assert "Usage: " in result.output


def test_the_table_is_in_units_that_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    costs = [
        Cost(100_000, 512, "ivf-rabitq", number, ms, 9 * 2**20, 11 * 2**20, 62.4, 3.0, 0.99918, 64)
        for number, ms in ((1, 3.456), (8, 40.0))
    ]
    Console(width=160).print(table_of(costs))
    printed = capsys.readouterr().out
    for told in (
        "100,000 x 512", "ivf-rabitq", "9.0 MiB", "11.0 MiB", "62 s", "0.99918", "64", "1 query", "8 queries",
        "3.46 ms", "40.00 ms",
    ):  # fmt: skip
        assert told in printed
