"""Weights averaged over networks, and batch statistics that fit them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model.card import InputSpec
from model.dataset import read_items
from model.network.embedding_net import EmbeddingNetwork
from model.training.averaging import average_weights, measure_batch_statistics
from model.training.whole_photos import whole_photos

pytestmark = pytest.mark.torch
SPEC = InputSpec(resize=40, crop=32, fit="stretch")


def network(seed: int) -> EmbeddingNetwork:
    torch.manual_seed(seed)
    return EmbeddingNetwork("resnet18", SPEC)


def test_each_network_counts_by_its_share() -> None:
    own, other = network(0), network(1)
    before = own.backbone.state_dict()["conv1.weight"].clone()
    average_weights(own, other, 0.3)
    weights = [one.backbone.state_dict()["conv1.weight"] for one in (own, other)]
    assert torch.allclose(weights[0], 0.7 * before + 0.3 * weights[1], atol=1e-6)


def test_batch_statistics_are_those_of_whole_photos(gallery: Path) -> None:
    """The first normalisation sees what the first convolution makes of the photos."""
    measured, items = network(0), read_items(gallery).items
    measure_batch_statistics(measured, items)
    crops = torch.cat([crops for crops, _ in whole_photos(items, SPEC)])
    state = measured.backbone.state_dict()
    maps = F.conv2d(measured.normalise(crops), state["conv1.weight"], stride=2, padding=3)
    assert torch.allclose(state["bn1.running_mean"], maps.mean(dim=(0, 2, 3)), atol=1e-4)
    assert not measured.training
