"""The interface of a runtime: crops in, embeddings out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from model.types import Embeddings, Pixels


def _never_known() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Pending:
    """A submitted batch.

    `wait` returns its embeddings float32 (B, D) or raises what went wrong; call it once or not at all. `done` says
    whether `wait` would return at once; False also where the runtime cannot tell.
    """

    wait: Callable[[], Embeddings]
    done: Callable[[], bool] = _never_known


class Runtime(Protocol):
    """A loaded network. Safe to call from several threads at once.

    `precision` goes into the embedding id: it is "fp32" for torch and for every graph measured equal to it. `batch` is
    the number of photos per batch that suits the device. `in_flight` is how many batches are worth having submitted at
    once: 1 where nothing is computed before somebody waits.
    """

    name: str
    precision: str
    dim: int
    batch: int
    in_flight: int

    def embed(self, crops: Pixels) -> Embeddings:
        """uint8 (B, S, S, 3) -> float32 (B, D), unit rows."""
        ...

    def submit(self, crops: Pixels, *, lone: bool = False) -> Pending:
        """Starts on uint8 (B, S, S, 3); raises here or when waited for.

        `lone` says that nothing else needs the device, so that these crops may take all of it.
        """
        ...
