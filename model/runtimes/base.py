"""What every runtime is: crops in, unit rows out."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.preprocess import Pixels


class Runtime(Protocol):
    """A loaded network. Safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """The runtime's name in `model.runtimes.RUNTIMES`."""
        ...

    @property
    def precision(self) -> str:
        """The precision that goes into the embedding id: "fp32" for torch and every graph measured equal to it."""
        ...

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        ...

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        ...
