"""What turns photo bytes into crops: on the host's CPU by default, or on a GPU."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from model.card import NVJPEG, InputSpec
from model.errors import ImageRejected, ModelMismatch, SettingsInvalid, missing_dependency
from model.images.decode import prepare
from model.runtimes.base import Runtime
from model.types import Pixels

if TYPE_CHECKING:  # a slim install has no torch
    from torch import Tensor

Rejected = dict[int, ImageRejected]
"""Row of a batch -> why its photo cannot be used."""

CPU = "cpu"
DECODERS = {CPU: None, "nvjpeg": NVJPEG}
"""What `--decoder` takes -> the name in an embedding id; None is the decoder that the model's card names."""


class Preparation(Protocol):
    """Photo bytes to crops in two steps, so that a device may work on many at once. Safe to call from several threads.

    What a photo becomes depends on its bytes alone, never on the batch it is in.
    """

    @property
    def decoder(self) -> str | None:
        """Its name in an embedding id; None is the decoder that the model's card names."""
        ...

    def prepare(self, data: bytes) -> Pixels:
        """Both steps for one photo: uint8 (S, S, 3); raises ImageRejected."""
        ...

    def stage(self, data: bytes) -> Any:
        """What is done for each photo in a pool of threads; raises ImageRejected."""
        ...

    def crops(self, staged: Sequence[Any]) -> "tuple[Pixels | Tensor, Rejected]":
        """What `stage` gave for B photos -> uint8 (B, S, S, 3), in memory or on the device.

        The rows of photos that only now turn out to be damaged mean nothing.
        """
        ...


class HostPreparation:
    """`model.images.decode` in the pool's threads."""

    decoder = None

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def prepare(self, data: bytes) -> Pixels:
        """Photo bytes -> uint8 (S, S, 3); raises ImageRejected."""
        return prepare(data, self._spec)

    stage = prepare

    def crops(self, staged: Sequence[Pixels]) -> tuple[Pixels, Rejected]:
        """B crops -> uint8 (B, S, S, 3)."""
        side = self._spec.crop
        return np.stack(staged) if staged else np.empty((0, side, side, 3), np.uint8), {}


def load_preparation(choice: str, spec: InputSpec, runtime: Runtime) -> Preparation:
    """The preparation by the name of a decoder, "cpu" or "nvjpeg".

    Raises SettingsInvalid for a name that is none, ModelMismatch where nvJPEG cannot run: photos that another decoder
    took apart have other embeddings, so nothing stands in for it.
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
