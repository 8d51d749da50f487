"""Runs that start from a model or learn from one: its weights go on, and no class it saw is validated on."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.card import WEIGHTS_NAME, InputSpec, load_card
from model.errors import DataInvalid, ModelInvalid, ModelNotFound
from model.network.embedding_net import EmbeddingNetwork
from model.training.leakage import check_unseen, initialise, seen_classes
from model.training.trainer import main
from tests.support.photos import write_gallery

SMALL = InputSpec(resize=40, crop=32)


def run(data: Path, out: Path, *more: str) -> int:
    arguments = ["--data", str(data), "--out", str(out), "--recipe", "quick", "--epochs", "1", "--workers", "0"]
    return main([*arguments, "--device", "cpu", *more])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the classes "car 1" to "car 4"."""
    folder = tmp_path_factory.mktemp("first")
    data = write_gallery(folder / "data", classes=4, first_kind=1)
    held = write_gallery(folder / "held", classes=2, first_kind=20)
    assert run(data, folder / "model", "--val", str(held), "--batch-size", "8") == 0
    return folder / "model"


def test_a_network_starts_with_the_weights_of_a_model(first: Path) -> None:
    network = EmbeddingNetwork("resnet18", SMALL)
    initialise(network, str(first))
    stored = load_file(first / WEIGHTS_NAME)
    assert all(
        torch.equal(value, stored[name].to(value.dtype)) for name, value in network.backbone.state_dict().items()
    )
    other = EmbeddingNetwork("efficientnet_lite0", SMALL)
    with pytest.raises(ModelInvalid, match="is a resnet18; the recipe's efficientnet_lite0 cannot start from it"):
        initialise(other, str(first))
    with pytest.raises(ModelNotFound):
        initialise(network, "no such model")


def test_random_leaves_the_weights_as_they_were_drawn() -> None:
    network = EmbeddingNetwork("resnet18", SMALL)
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    initialise(network, "random")
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())


def test_classes_seen_go_from_model_to_model(first: Path, tmp_path: Path) -> None:
    data = write_gallery(tmp_path / "data", classes=3, first_kind=7)
    held = write_gallery(tmp_path / "held", classes=2, first_kind=30)
    second = tmp_path / "second"
    assert run(data, second, "--val", str(held), "--init", str(first)) == 0
    training = load_card(second).training
    assert training["recipe"]["init"] == "the model model"
    assert training["labels"]["earlier"] == ["car 1", "car 2", "car 3", "car 4"]
    assert seen_classes(("random", str(second))) == {f"car {kind}" for kind in (1, 2, 3, 4, 7, 8, 9)}
    check_unseen({"car 30"}, (str(second), ""))
    with pytest.raises(DataInvalid, match='The class "car 2" of validation is one that a model'):
        check_unseen({"car 2", "car 30"}, ("imagenet", str(second)))


def test_a_class_that_the_start_was_trained_on_is_not_validated_on(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_gallery(tmp_path / "data", classes=3, first_kind=7)
    held = write_gallery(tmp_path / "held", classes=2, first_kind=4)
    assert run(data, tmp_path / "out", "--val", str(held), "--init", str(first)) == 1
    assert 'The class "car 4" of validation' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
