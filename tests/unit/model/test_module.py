"""Validation while training is the benchmark: one number, whatever precision training has."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.benchmark.evaluate import evaluate
from model.card import verify_artifact
from model.dataset import Item, read_items
from model.embedder import Embedder
from tests.support.photos import car_photo, write_gallery

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def hard_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """27 photos in classes that their looks only partly follow, so that top-1 is neither 0 nor 1."""
    root = tmp_path_factory.mktemp("hard")
    random = np.random.default_rng(3)
    for number in range(27):
        folder = root / f"class {number % 4}"
        folder.mkdir(exist_ok=True)
        kind = number % 4 if random.random() < 0.6 else int(random.integers(0, 4))
        (folder / f"{number:02}.jpg").write_bytes(car_photo(kind, number))
    return root


@pytest.fixture(scope="module")
def items(hard_set: Path) -> list[Item]:
    return read_items(hard_set).items


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_records_the_benchmarks_score_of_the_artifact_it_writes(
    hard_set: Path, items: list[Item], tmp_path: Path, precision: str
) -> None:
    data, out = write_gallery(tmp_path / "data", classes=3, photos=8, first_kind=10), tmp_path / "night"
    (data / "stray.jpg").write_bytes(car_photo())
    (data / "car 10" / "broken.jpg").write_bytes(b"no photo")
    command = [
        sys.executable,
        "-m",
        "carsearch",
        "train",
        "--data",
        str(data),
        "--val",
        str(hard_set),
        "--out",
        str(out),
    ]
    command += ["--recipe", "quick", "--epochs", "1", "--device", "cpu", "--workers", "0"]
    command += ["--precision", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    card = verify_artifact(out)
    assert card.name == "night"
    expected = evaluate(items, Embedder.load(out, "torch")).report.top1
    assert 0.1 < expected < 0.9
    assert card.training["validation_top1"] == round(expected, 6)
    with (out / "training" / "csv" / "version_0" / "metrics.csv").open(newline="") as file:
        logged = [float(row["val_top1"]) for row in csv.DictReader(file) if row["val_top1"]]
    assert logged == [pytest.approx(expected, abs=1.5 / len(items))]  # the artifact's kernels are in half precision
    assert sorted(line for line in done.stderr.splitlines() if line.startswith("skipped ")) == [
        "skipped car 10/broken.jpg: The file is not a JPEG, PNG, WebP, AVIF or HEIC photo.",
        "skipped stray.jpg: The photo has no class.",
    ]
