"""How busy a GPU was meanwhile, by what its driver says several times a second."""

import threading
from types import TracebackType

import torch

EVERY_S = 0.1


class Utilisation:
    """Asks while a block runs; knows nothing where there is no GPU or torch cannot ask (it takes nvidia-ml-py)."""

    def __init__(self) -> None:
        self._samples: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def mean(self) -> float | None:
        """Percent of the time in which a kernel ran; None where that cannot be known."""
        return sum(self._samples) / len(self._samples) if self._samples else None

    def _sample(self) -> None:
        while torch.cuda.is_available() and not self._ended.wait(EVERY_S):
            try:
                self._samples.append(torch.cuda.utilization())
            except (ModuleNotFoundError, RuntimeError):
                return

    def __enter__(self) -> "Utilisation":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
