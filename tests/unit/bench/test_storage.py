"""What each storage costs is measured on the vectors of an index or on made-up ones, and told in a table and JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.__main__ import app
from bench.storage import Cost, embeddings_of_index, made_up, measure, table_of
from indexer.build import build_index
from indexer.stores.precision import Storage
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from tests.unit.indexer.sets import write_photos


@pytest.fixture(params=list(Storage))
def index(tmp_path: Path, fake_embedder: Embedder, request: pytest.FixtureRequest) -> IndexDirectory:
    photos = write_photos(tmp_path / "photos", [f"{label}/{shot}.jpg" for label in "ab" for shot in range(3)])
    made = IndexDirectory(tmp_path / "index")
    build_index(photos, made, fake_embedder, storage=request.param)
    return made


def test_the_vectors_of_an_index_are_those_before_they_were_rounded(
    index: IndexDirectory, tmp_path: Path, fake_embedder: Embedder
) -> None:
    expected = [fake_embedder.embed_photo(path.read_bytes()) for path in sorted((tmp_path / "photos").rglob("*.jpg"))]
    assert embeddings_of_index(index).tobytes() == np.stack(expected).tobytes()


def test_every_storage_is_measured_with_every_number_of_queries() -> None:
    costs = measure(made_up(300, 32), [1, 3], seconds=0, recall=True)
    assert [(cost.storage, cost.queries) for cost in costs] == [
        ("fp32", 1), ("fp32", 3), ("fp16", 1), ("fp16", 3), ("sq8", 1), ("sq8", 3)
    ]  # fmt: skip
    assert costs[0].recall_at_1 == 1.0
    assert all(cost.call_ms > 0 and cost.rows == 300 for cost in costs)
    whole, half, eighth = (cost.index_bytes for cost in costs[::2])
    assert 300 * 32 * 4 < whole < 300 * 32 * 4 + 500
    assert (whole > half > eighth) is True


def test_the_command_tells_recall_of_an_index_and_not_of_made_up_vectors(index: IndexDirectory, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["--rows", "50", "--dim", "8", "--queries", "2", "--seconds", "0", "--report", str(report)]
    result = CliRunner().invoke(app, ["storage", "--index", str(index.root), *options])
    assert result.exit_code == 0, result.output
    told = [(cost["rows"], cost["storage"], cost["recall_at_1"]) for cost in json.loads(report.read_bytes())]
    assert told == [(6, "fp32", 1.0), (6, "fp16", 1.0), (6, "sq8", 1.0), *((50, name, None) for name in Storage)]


def test_vectors_have_to_come_from_somewhere() -> None:
    result = CliRunner().invoke(app, ["storage"])
    assert result.exit_code == 2
    assert "Usage: " in result.output


def test_the_table_is_in_units_that_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [Cost(100_000, "fp16", number, ms, 98 * 2**20, 0.99918) for number, ms in ((1, 3.456), (8, 40.0))]
    Console(width=120).print(table_of(sizes))
    printed = capsys.readouterr().out
    for told in ("100,000", "fp16", "98.0 MiB", "0.99918", "1 query", "8 queries", "3.46 ms", "40.00 ms"):
        assert told in printed
