"""The network: He's initialisation, the embedding where the seed takes it, and weights that are what they claim."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from model.card import WEIGHTS_NAME, InputSpec, load_card
from model.errors import ModelInvalid
from model.network.embedding_net import EmbeddingNetwork, load_imagenet, load_network, load_weights_file, save_weights
from tests.support.photos import car_pixels

pytestmark = pytest.mark.torch

SPEC = InputSpec(resize=72, crop=64)
CROPS = np.stack([car_pixels(kind, 0, (64, 64)) for kind in range(3)])


class Canary:
    """Unpickling this makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def network() -> EmbeddingNetwork:
    torch.manual_seed(1)
    return EmbeddingNetwork("resnet18", SPEC).eval()


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub looks for the ImageNet weights before it downloads them, in an empty cache and offline."""

    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / str(ResNet18_Weights.IMAGENET1K_V1.url).rpartition("/")[2]


def test_convolutions_are_drawn_from_hes_normal_distribution(network: EmbeddingNetwork) -> None:
    convolutions = [layer for layer in network.backbone.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 20
    for layer in convolutions:
        fan_out = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
        weights = layer.weight.detach()
        assert float(weights.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        assert abs(float(weights.mean())) < 0.1 * (2 / fan_out) ** 0.5


def test_the_embedding_is_resnets_pooled_features_before_fc_at_unit_length(network: EmbeddingNetwork) -> None:
    reference = resnet18(weights=None).eval()
    reference.load_state_dict({**reference.state_dict(), **network.backbone.state_dict()})
    pooled: list[Tensor] = []
    reference.avgpool.register_forward_hook(lambda _layer, _inputs, output: pooled.append(output.flatten(1)))
    images = (CROPS / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    with torch.inference_mode():
        reference(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)))
        embeddings = network(torch.from_numpy(CROPS)).numpy()
    features = pooled[0].numpy()
    assert features.shape == (3, network.dim) == (3, 512)
    assert embeddings == pytest.approx(features / np.linalg.norm(features, axis=1, keepdims=True), abs=1e-5)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(3), abs=1e-6)


def test_pixels_are_normalised_with_the_mean_and_deviation_of_the_spec(network: EmbeddingNetwork) -> None:
    crop = torch.tensor([[[[125, 123, 114]]]], dtype=torch.uint8)
    expected = [(125 - 125.3) / 63.0, (123 - 123.0) / 62.1, (114 - 113.9) / 66.7]
    assert network.normalise(crop).flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_an_unknown_architecture_is_answered_with_those_there_are() -> None:
    with pytest.raises(ModelInvalid, match='no architecture "vgg"; there are: resnet18'):
        EmbeddingNetwork("vgg", SPEC)


def test_weights_survive_being_written_and_read(network: EmbeddingNetwork, real_model: Path, tmp_path: Path) -> None:
    save_weights(network, tmp_path)
    again = load_network(tmp_path, load_card(real_model))
    assert not again.training
    crops = torch.from_numpy(CROPS)
    with torch.inference_mode():
        assert torch.equal(again(crops), network(crops))


def test_imagenet_weights_come_from_the_cache_without_a_network(network: EmbeddingNetwork, cached: Path) -> None:
    torch.manual_seed(2)
    weights = resnet18(weights=None).state_dict()
    torch.save(weights, cached)
    load_imagenet(network)
    loaded = network.backbone.state_dict()
    assert set(weights) - set(loaded) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(loaded[name], weights[name]) for name in loaded)


@pytest.mark.usefixtures("cached")
def test_imagenet_weights_without_cache_or_network_are_one_sentence(network: EmbeddingNetwork) -> None:
    with pytest.raises(ModelInvalid, match=r"^The ImageNet weights .*no network.*; use --init random\.$") as caught:
        load_imagenet(network)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02.", b"<html>sign in</html>", b"PK\3\4" + bytes(500)])
def test_a_damaged_file_in_the_cache_is_one_sentence(network: EmbeddingNetwork, cached: Path, content: bytes) -> None:
    cached.write_bytes(content)
    with pytest.raises(ModelInvalid, match=r"^The ImageNet weights .*; use --init random\.$") as caught:
        load_imagenet(network)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_in_the_cache_are_refused(network: EmbeddingNetwork, cached: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, cached)
    with pytest.raises(ModelInvalid, match=r"^The ImageNet weights .*; use --init random\.$"):
        load_imagenet(network)


@pytest.mark.parametrize("change", ["renamed", "missing", "reshaped"])
def test_weights_of_another_network_are_refused(real_model: Path, tmp_path: Path, change: str) -> None:
    tensors = load_file(real_model / WEIGHTS_NAME)
    first = tensors.pop("conv1.weight")
    if change != "missing":
        tensors["stem.weight" if change == "renamed" else "conv1.weight"] = first[:, :, :3, :3].contiguous()
    save_file(tensors, tmp_path / WEIGHTS_NAME)
    with pytest.raises(ModelInvalid, match=rf"{WEIGHTS_NAME} does not hold a resnet18\.$"):
        load_network(tmp_path, load_card(real_model))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_is_refused_and_never_unpickled(
    network: EmbeddingNetwork, real_model: Path, cached: Path, tmp_path: Path, writer: str
) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / WEIGHTS_NAME
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"conv1.weight": Canary(canary)}, protocol=2))
    else:
        torch.save({"conv1.weight": Canary(canary)}, path)
    shutil.copy(path, cached)
    with pytest.raises(ModelInvalid, match=r"does not hold a resnet18\.$"):
        load_network(tmp_path, load_card(real_model))
    with pytest.raises(ModelInvalid, match=r"; use --init random\.$"):
        load_imagenet(network)
    assert not canary.exists()


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 100])
def test_missing_or_garbled_weights_are_refused(real_model: Path, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / WEIGHTS_NAME).write_bytes(content)
    with pytest.raises(ModelInvalid, match=r"does not hold a resnet18\.$"):
        load_network(tmp_path, load_card(real_model))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_torchvision_s_weights_is_taken_without_its_classifier(
    network: EmbeddingNetwork, tmp_path: Path, suffix: str
) -> None:
    torch.manual_seed(2)
    weights, path = resnet18(weights=None).state_dict(), tmp_path / f"weights{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    load_weights_file(network, path)
    assert all(torch.equal(value, weights[name]) for name, value in network.backbone.state_dict().items())


def test_a_file_of_timm_s_weights_is_taken(tmp_path: Path) -> None:
    first, second = (EmbeddingNetwork("efficientnet_lite0", SPEC) for _ in range(2))
    names = first.backbone[0].state_dict()  # type: ignore[index]  # a Sequential
    save_file({**names, "classifier.weight": torch.zeros(1)}, tmp_path / "lite.safetensors")
    load_weights_file(second, tmp_path / "lite.safetensors")
    assert all(torch.equal(value, names[name[2:]]) for name, value in second.backbone.state_dict().items())


@pytest.mark.parametrize("content", ["half", "pickle", "text", "list", "missing"])
def test_a_file_that_holds_no_such_weights_is_one_sentence_and_never_executed(
    network: EmbeddingNetwork, tmp_path: Path, content: str
) -> None:
    path, canary = tmp_path / "weights.pth", tmp_path / "canary"
    if content == "half":
        torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    elif content == "pickle":
        torch.save({"conv1.weight": Canary(canary)}, path)
    elif content == "text":
        path.write_text("no weights")
    elif content == "list":
        torch.save([1, 2], path)
    with pytest.raises(ModelInvalid, match=r"does not hold the weights of a resnet18\.$"):
        load_weights_file(network, path)
    assert not canary.exists()
