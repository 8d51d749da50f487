"""Training with the real loop: killed runs resume as if nothing had happened, and bad input is one sentence."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.card import WEIGHTS_NAME, InputSpec, load_card, verify_artifact
from model.dataset import read_items, split_classes
from model.embedder import Embedder
from model.errors import ModelInvalid, ModelNotFound
from model.network.embedding_net import EmbeddingNetwork
from model.training.leakage import check_unseen
from model.training.recipes import RECIPES
from model.training.trainer import DurableCheckpoints, initialise, started_from
from tests.support.photos import car_photo, write_gallery
from tests.support.training import train

EPOCHS = 3
pytestmark = pytest.mark.torch
SMALL = InputSpec(resize=40, crop=32)
WITHOUT_THE_REST = (
    "import sys; sys.modules.update(dict.fromkeys(['faiss', 'openvino', 'pydantic', 'fastapi', 'typer'])); "
    "from model.training.options import parse_options; from model.training.trainer import train; "
    "print(train(parse_options(None, 'train')))"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("photos"), classes=6, photos=6)


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--data", str(data), "--out", str(out), "--recipe", "quick", "--epochs", str(EPOCHS)),
        *("--workers", "0", "--device", "cpu", "--precision", "32-true", *more),
    ]


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed, in a process that cannot import what serving needs."""
    out = tmp_path_factory.mktemp("trained")
    command = [sys.executable, "-c", WITHOUT_THE_REST, *arguments(photos, out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out)
    return out


@pytest.fixture(scope="module")
def resumed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed when its first checkpoint appeared, and started again by the same command."""
    out = tmp_path_factory.mktemp("resumed")
    command = [sys.executable, "-m", "carsearch", "train", *arguments(photos, out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "training" / "last.ckpt").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "card.json").exists()
    subprocess.run(command, capture_output=True, check=True, timeout=200)
    return out


def epochs_with_score(out: Path, run: int) -> list[int]:
    """The epochs that one process of a run validated."""
    path = out / "training" / "csv" / f"version_{run}" / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file) if row.get("val_top1")]


def test_a_run_needs_only_the_training_packages_and_writes_an_artifact_that_verifies(
    trained: Path, photos: Path
) -> None:
    card = verify_artifact(trained)
    train, held = split_classes(read_items(photos).items)
    assert (card.name, card.embedding_dim, card.input.crop) == (trained.name, 512, 96)
    assert card.training["train"] == {"photos": len(train), "classes": 4} == {"photos": 24, "classes": 4}
    assert card.training["validation"] == {"photos": len(held), "classes": 2} == {"photos": 12, "classes": 2}
    assert card.training["recipe"]["epochs"] == EPOCHS
    assert epochs_with_score(trained, 0) == list(range(EPOCHS))
    assert Embedder.load(trained, "torch").embed_photo(car_photo()).shape == (512,)


def test_the_artifact_is_the_best_epoch(trained: Path) -> None:
    with (trained / "training" / "csv" / "version_0" / "metrics.csv").open(newline="") as file:
        scores = [float(row["val_top1"]) for row in csv.DictReader(file) if row["val_top1"]]
    training = load_card(trained).training
    assert training["validation_top1"] == pytest.approx(max(scores), abs=1e-6)
    assert scores[training["epoch"] - 1] == max(scores)


def test_a_recipe_may_keep_the_last_epoch_and_only_watch_validation(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = dataclasses.replace(RECIPES["quick"], name="patient", keep="last")
    monkeypatch.setitem(RECIPES, "patient", patient)
    assert train([*arguments(photos, tmp_path), "--recipe", "patient", "--validate-every", "2"]) == 0
    assert epochs_with_score(tmp_path, 0) == [1]
    training = load_card(tmp_path).training
    assert training["epoch"] == EPOCHS
    last = torch.load(tmp_path / "training" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    assert torch.equal(load_file(tmp_path / WEIGHTS_NAME)["bn1.weight"], last["network.backbone.bn1.weight"])


@pytest.fixture
def like_teacher(real_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a run whose recipe leaves all of the weight to the teacher's weights."""
    recipe = dataclasses.replace(RECIPES["quick"], name="like-teacher", keep="last", teacher_share=1.0)
    monkeypatch.setitem(RECIPES, "like-teacher", recipe)
    unlabelled = write_gallery(tmp_path / "unlabelled", classes=2, photos=2, first_kind=20)
    options = ["--recipe", "like-teacher", "--epochs", "1"]
    return [*options, "--teacher", str(real_model), "--unlabelled", str(unlabelled)]


def weights_and_last_checkpoint(out: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    last = torch.load(out / "training" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    return load_file(out / WEIGHTS_NAME), last


def test_weights_are_averaged_with_those_of_the_teacher_and_without_a_teacher_with_none(
    real_model: Path, trained: Path, photos: Path, tmp_path: Path, like_teacher: list[str]
) -> None:
    teacher = load_file(real_model / WEIGHTS_NAME)
    start = ("--init", str(trained))
    assert train([*arguments(photos, tmp_path / "taught", *start), *like_teacher]) == 0
    averaged, _ = weights_and_last_checkpoint(tmp_path / "taught")
    assert torch.equal(averaged["conv1.weight"], teacher["conv1.weight"])
    assert torch.equal(averaged["bn1.running_mean"], teacher["bn1.running_mean"])  # too few photos to measure them anew
    assert train([*arguments(photos, tmp_path / "alone", *start), *like_teacher[:4]]) == 0
    alone, last = weights_and_last_checkpoint(tmp_path / "alone")
    assert torch.equal(alone["bn1.running_mean"], last["network.backbone.bn1.running_mean"])


def test_a_run_from_random_weights_is_not_averaged(photos: Path, tmp_path: Path, like_teacher: list[str]) -> None:
    assert train([*arguments(photos, tmp_path / "out"), *like_teacher]) == 0
    weights, last = weights_and_last_checkpoint(tmp_path / "out")
    assert torch.equal(weights["conv1.weight"], last["network.backbone.conv1.weight"].half())


def test_a_killed_run_goes_on_where_it_was(resumed: Path) -> None:
    first, second = epochs_with_score(resumed, 0), epochs_with_score(resumed, 1)
    assert second
    assert second[0] >= 1
    assert second == list(range(second[0], EPOCHS))
    assert set(first) <= set(range(second[0] + 1))
    assert verify_artifact(resumed).training["recipe"]["epochs"] == EPOCHS


def test_a_killed_and_resumed_run_ends_with_the_network_of_an_undisturbed_one(trained: Path, resumed: Path) -> None:
    assert load_card(resumed).weights_sha256 == load_card(trained).weights_sha256
    last = [
        torch.load(out / "training" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        for out in (trained, resumed)
    ]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    DurableCheckpoints().save_checkpoint({"epoch": 1}, path)

    def killed(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        DurableCheckpoints().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]  # and no half of the next


def refused(capsys: pytest.CaptureFixture[str], command: list[str]) -> str:
    """Runs a command line that must fail; returns its one sentence."""
    assert train(command) == 1
    written = capsys.readouterr()
    assert written.out == ""
    *_, sentence = written.err.splitlines()
    assert "Traceback" not in written.err
    return sentence.removeprefix("error: ")


def test_other_photos_or_epochs_in_the_directory_of_a_run_are_refused(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / WEIGHTS_NAME).read_bytes()
    other = write_gallery(tmp_path, classes=5, photos=4)
    for command in (arguments(other, trained), arguments(photos, trained, "--epochs", "9")):
        assert "holds checkpoints of another run (recipe, epochs or photos differ)" in refused(capsys, command)
    assert (trained / WEIGHTS_NAME).read_bytes() == before


def test_a_run_may_be_started_over(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "run.json").write_text('{"identity": "of another run"}')
    (tmp_path / "training" / "last.ckpt").write_bytes(b"of another run")
    assert "start over with --restart" in refused(capsys, arguments(photos, tmp_path))
    assert train([*arguments(photos, tmp_path, "--restart"), "--epochs", "1"]) == 0
    assert load_card(tmp_path).training["epoch"] == 1


def test_an_unknown_recipe_is_one_sentence(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, arguments(photos, tmp_path / "out", "--recipe", "slow"))
    assert sentence == 'There is no recipe "slow"; there are: baseline, efficientnet_lite0, quick, resnet18.'
    assert not (tmp_path / "out").exists()


def test_a_directory_whose_run_is_unreadable_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "run.json").write_text("{")
    assert refused(capsys, arguments(photos, tmp_path)).endswith("run.json is not valid JSON.")


def test_a_file_in_the_place_of_the_directory_is_one_sentence(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_bytes(b"")
    assert "out" in refused(capsys, arguments(photos, tmp_path / "out"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_one_sentence(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(capsys, arguments(photos, tmp_path / "out", "--device", "cuda"))
    assert sentence == "There is no CUDA device; train with --device cpu."


def test_the_run_says_which_photos_an_export_is_measured_on(trained: Path, photos: Path) -> None:
    assert json.loads((trained / "training" / "run.json").read_bytes())["photos"] == str(photos)


def test_a_network_starts_with_the_weights_of_a_model(trained: Path) -> None:
    network = EmbeddingNetwork("resnet18", SMALL)
    initialise(network, str(trained))
    stored = load_file(trained / WEIGHTS_NAME)
    assert all(
        torch.equal(value, stored[name].to(value.dtype)) for name, value in network.backbone.state_dict().items()
    )
    other = EmbeddingNetwork("efficientnet_lite0", SMALL)
    with pytest.raises(ModelInvalid, match="is resnet18, and the recipe trains efficientnet_lite0"):
        initialise(other, str(trained))
    with pytest.raises(ModelNotFound):
        initialise(network, "no such model")


def test_random_leaves_the_weights_as_they_were_drawn() -> None:
    network = EmbeddingNetwork("resnet18", SMALL)
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    initialise(network, "random")
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())


def test_published_weights_get_pixels_normalised_as_they_expect_them(tmp_path: Path) -> None:
    network = EmbeddingNetwork("resnet18", SMALL)
    torch.save(network.backbone.state_dict(), tmp_path / "weights.pth")
    for init in ("imagenet", str(tmp_path / "weights.pth")):
        spec = started_from(RECIPES["resnet18"], init).input
        assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert started_from(RECIPES["resnet18"], "random").input == RECIPES["resnet18"].input
    other = EmbeddingNetwork("resnet18", SMALL)
    initialise(other, str(tmp_path / "weights.pth"))
    assert torch.equal(other.backbone.state_dict()["conv1.weight"], network.backbone.state_dict()["conv1.weight"])
    check_unseen({"car 1"}, (str(tmp_path / "weights.pth"),))  # nobody knows what they were trained on


def test_a_run_that_starts_from_a_model_normalises_pixels_as_that_model_does(trained: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(trained, start, ignore=shutil.ignore_patterns("training"))
    card = load_card(start)
    dataclasses.replace(card, input=dataclasses.replace(card.input, mean=(0.1, 0.2, 0.3))).save(start)
    assert started_from(RECIPES["resnet18"], str(start)).input.mean == (0.1, 0.2, 0.3)
