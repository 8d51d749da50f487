"""Photos whose search a test holds up, and the client of an application with keys."""

import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model.runtimes.fake import FakeRuntime
from model.types import Pixels
from tests.support.photos import encoded

SLOW_COLOUR = (0, 0, 250)
PATIENCE_S = 60


class Gate:
    """Photos of one colour are embedded only while the gate is open; `photo` is one."""

    photo = encoded(Image.new("RGB", (96, 72), SLOW_COLOUR), "PNG")

    def __init__(self) -> None:
        self._open = threading.Event()
        self._entered = threading.Semaphore(0)

    def open(self) -> None:
        self._open.set()

    def pass_through(self, crops: Pixels) -> None:
        """Called with what is embedded, uint8 (B, S, S, 3)."""
        if (crops == SLOW_COLOUR).all(axis=(1, 2, 3)).any():
            self._entered.release()
            assert self._open.wait(PATIENCE_S)

    def wait_until_entered(self) -> None:
        """Returns when another slow photo is being embedded."""
        assert self._entered.acquire(timeout=PATIENCE_S)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A closed gate in every application of this process; it is open at the end."""
    made, embed = Gate(), FakeRuntime.embed

    def embed_behind_the_gate(runtime: FakeRuntime, crops: Pixels) -> npt.NDArray[np.float32]:
        made.pass_through(crops)
        return embed(runtime, crops)

    monkeypatch.setattr(FakeRuntime, "embed", embed_behind_the_gate)
    yield made
    made.open()
