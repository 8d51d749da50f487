"""Photo bytes to crops: on the CPU by default, or with nvJPEG on a GPU."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from model.card import NVJPEG, InputSpec
from model.errors import ImageRejected, ModelMismatch, SettingsInvalid, missing_dependency
from model.images.box import Box
from model.images.transform import prepare
from model.runtimes.base import Runtime
from model.types import Pixels

if TYPE_CHECKING:  # a slim install has no torch
    from torch import Tensor

Rejected = dict[int, ImageRejected]
"""Row of a batch -> why its photo cannot be used."""

CPU = "cpu"
DECODERS = {CPU: None, "nvjpeg": NVJPEG}
"""Value of `--decoder` -> the decoder's name in an embedding id; None is the one that the model's card names."""


class Preparation(Protocol):
    """Photo bytes to crops in two steps, so that a device may decode a whole batch. Safe to call from several threads.

    The crop of a photo depends on its bytes alone, never on the batch it is in.
    """

    decoder: str | None
    """The decoder's name in an embedding id; None is the one that the model's card names."""

    def prepare(self, data: bytes, box: Box | None = None) -> Pixels:
        """Both steps for one photo, or for its box: uint8 (S, S, 3); raises ImageRejected, InvalidBox."""
        ...

    def stage(self, data: bytes) -> Any:
        """The first step, for one photo in a thread of the decode pool; raises ImageRejected."""
        ...

    def crops(self, staged: Sequence[Any]) -> "tuple[Pixels | Tensor, Rejected]":
        """The second step: B staged photos -> uint8 (B, S, S, 3), in memory or on the device.

        The rows of rejected photos hold no meaningful crop.
        """
        ...


class HostPreparation:
    """Decodes and resizes on the CPU, in the threads of the decode pool."""

    decoder: str | None = None

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def prepare(self, data: bytes, box: Box | None = None) -> Pixels:
        return prepare(data, self._spec, box)

    def stage(self, data: bytes) -> Pixels:
        return prepare(data, self._spec)

    def crops(self, staged: Sequence[Pixels]) -> tuple[Pixels, Rejected]:
        side = self._spec.crop
        return np.stack(staged) if staged else np.empty((0, side, side, 3), np.uint8), {}


def load_preparation(choice: str, spec: InputSpec, runtime: Runtime) -> Preparation:
    """Loads the preparation by the name of a decoder, "cpu" or "nvjpeg".

    Raises SettingsInvalid for an unknown name, ModelMismatch where nvJPEG cannot run. There is no fallback, because
    another decoder gives other embeddings.
    """
    if choice not in DECODERS:
        raise SettingsInvalid(f'There is no decoder "{choice}"; there are: {", ".join(DECODERS)}.')
    if choice == CPU:
        return HostPreparation(spec)
    device = getattr(runtime, "device", None)
    if device is None or device.type != "cuda":
        where = runtime.name if device is None else f"{runtime.name} on a {device.type.upper()}"
        raise ModelMismatch(
            f"The decoder nvjpeg needs the runtime torch on CUDA, and this is {where}; use such a machine, or build "
            "the index again with: carsearch index GALLERY --decoder cpu"
        )
    try:
        from model.images.nvjpeg import NvjpegPreparation
    except ModuleNotFoundError as problem:
        raise missing_dependency(problem) or problem from problem
    return NvjpegPreparation(spec, device)
