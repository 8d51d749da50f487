"""What every runtime is: crops in, unit rows out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from model.types import Pixels

if TYPE_CHECKING:  # a slim install has no torch
    from torch import Tensor

Result = TypeVar("Result")


def _unknown() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch that a runtime works on.

    `wait` gives its rows float32 (B, D) or raises what went wrong; it is called once or not at all. `done` says whether
    that would not have to wait; False also where nobody knows.
    """

    wait: Callable[[], npt.NDArray[np.float32]]
    done: Callable[[], bool] = _unknown


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


@runtime_checkable
class AsynchronousRuntime(Protocol):
    """A runtime that computes while its caller prepares the next batch."""

    @property
    def batch(self) -> int:
        """Photos a batch that suit the device."""
        ...

    @property
    def in_flight(self) -> int:
        """Batches worth having submitted at once: 1 where `submit` returns only when all is computed."""
        ...

    @property
    def enough(self) -> int:
        """Photos that keep the device busy: with fewer, more are worth submitting in batches as small as they come."""
        ...

    def submit(self, crops: "Pixels | Tensor", *, lone: bool = False) -> Pending:
        """Starts on uint8 (B, S, S, 3), in memory or on the device; what goes wrong is raised here or by waiting.

        `lone` says that nothing else wants the device: these are worth more of it than their share.
        """
        ...


def running_ahead(submitted: Iterable[Result], in_flight: int) -> Iterator[Result]:
    """Hands an iterator's values on in their order, each only when the `in_flight` - 1 after it are there too."""
    waiting: deque[Result] = deque()
    for one in submitted:
        waiting.append(one)
        if len(waiting) >= in_flight:
            yield waiting.popleft()
    yield from waiting
