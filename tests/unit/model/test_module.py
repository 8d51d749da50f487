"""Validation while training is the benchmark: one number, by brute force, `evaluate` or several processes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.benchmark.evaluate import evaluate
from model.card import InputSpec, verify_artifact
from model.dataset import Item, read_items
from model.embedder import Embedder
from model.network.embedding_net import EmbeddingNetwork
from model.training.dataset import ValidationSet
from model.training.module import Classifier
from model.training.recipes import QUICK
from model.training.sampler import ValidationSampler
from model.types import Embeddings, Rows
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


def brute_force_top1(items: list[Item], embeddings: Embeddings) -> float:
    scores = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    np.fill_diagonal(scores, -np.inf)
    labels = np.array([item.label for item in items])
    return float((labels[scores.argmax(axis=1)] == labels).mean())


def gathered(processes: int, count: int, embeddings: Embeddings) -> tuple[Rows, Embeddings]:
    """Rows and embeddings as the processes hand them in, one share after the other, with their padding."""
    rows = np.array([row for rank in range(processes) for row in ValidationSampler(count, rank, processes)])
    return rows, embeddings[rows]


@pytest.mark.parametrize("processes", [1, 2, 4, 5])
def test_top1_of_gathered_shares_is_the_benchmarks(items: list[Item], fake_embedder: Embedder, processes: int) -> None:
    spec: InputSpec = fake_embedder.card.input
    photos = ValidationSet(items, spec)
    embeddings = fake_embedder.embed_crops(np.stack([photos[row][0] for row in range(len(photos))]))
    classifier = Classifier(EmbeddingNetwork("resnet18", spec), QUICK, 4, photos.targets)
    report = evaluate(items, fake_embedder).report
    rows, shares = gathered(processes, len(items), embeddings)
    assert 0.2 < report.top1 < 0.9
    assert classifier.top1(rows, shares) == report.top1 == brute_force_top1(items, embeddings)


def test_validation_is_in_fp32_whatever_precision_training_has(items: list[Item]) -> None:
    photos = ValidationSet(items[:4], InputSpec(72, 64))
    crops, rows = torch.from_numpy(np.stack([photos[row][0] for row in range(4)])), torch.arange(4)
    classifier = Classifier(EmbeddingNetwork("resnet18", InputSpec(72, 64)), QUICK, 4, photos.targets).eval()
    with torch.inference_mode():
        expected = classifier.network(crops)
        with torch.autocast("cpu", torch.bfloat16):
            assert not torch.equal(classifier.network(crops), expected)
            classifier.validation_step((crops, rows), 0)
    assert torch.equal(classifier.validated[0][1], expected)


def test_two_processes_validate_to_the_number_of_one_and_of_the_benchmark(
    real_model: Path, hard_set: Path, items: list[Item], tmp_path: Path
) -> None:
    expected = evaluate(items, Embedder.load(real_model, "torch")).report.top1
    assert 0.2 < expected < 0.9
    assert len(items) % 2 == 1
    found: list[float] = []
    for processes in (1, 2):
        score = tmp_path / f"score-{processes}"
        command = [sys.executable, "-m", "tests.unit.model.ddp_validation"]
        command += map(str, (real_model, hard_set, processes, score))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        world_size, top1 = score.read_text().split()
        assert int(world_size) == processes
        found.append(float(top1))
    assert found[0] == found[1] == float(np.float32(expected))  # it is logged in float32


@pytest.mark.parametrize(("processes", "precision"), [(2, "32-true"), (1, "bf16-mixed")])
def test_a_run_records_the_benchmarks_score_of_the_artifact_it_writes(
    hard_set: Path, items: list[Item], tmp_path: Path, processes: int, precision: str
) -> None:
    data, out = write_gallery(tmp_path / "data", classes=3, photos=8, first_kind=10), tmp_path / "night"
    (data / "stray.jpg").write_bytes(car_photo())
    (data / "car 10" / "broken.jpg").write_bytes(b"no photo")
    command = [
        sys.executable,
        "-m",
        "model.training",
        "--data",
        str(data),
        "--val",
        str(hard_set),
        "--out",
        str(out),
    ]
    command += ["--recipe", "quick", "--epochs", "1", "--device", "cpu", "--workers", "0"]
    command += ["--devices", str(processes), "--precision", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    card = verify_artifact(out)
    assert card.name == "night"
    expected = evaluate(items, Embedder.load(out, "torch")).report.top1
    assert card.training["validation_top1"] == round(float(np.float32(expected)), 6)
    assert sorted(line for line in done.stderr.splitlines() if line.startswith("skipped ")) == [
        "skipped car%2010/broken.jpg: The file is not a JPEG, PNG, WebP, AVIF or HEIC photo.",
        "skipped stray.jpg: The file lies in no class folder.",
    ]
