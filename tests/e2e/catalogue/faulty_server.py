"""A server whose network fails on pictures of one colour: `python -m tests.e2e.catalogue.faulty_server serve ...`.

The colour says what becomes of the batch that the picture is in. While the file exists that the variable GATE names the
network embeds nothing, so that a test decides what is in a batch, what is queued and what is being embedded.
"""

import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.runtimes.base import Pending
from model.runtimes.openvino import OpenVINORuntime
from model.types import Embeddings, Pixels
from service.cli import main as cli
from tests.support.photos import encoded

GATE = "FAULTY_GATE"
POISON, NO_MEMORY, CROWDED = (250, 0, 0), (250, 250, 0), (0, 250, 0)
"""Fails as a bug does; finds no memory; finds none for more than one photo at once."""

WRONG_ROWS: dict[tuple[int, ...], float] = {(250, 0, 250): np.nan, (0, 250, 250): np.inf, (250, 250, 250): 0.0}
"""Colours whose embedding is all the same value."""

WAITED_S = 0.01
submit = OpenVINORuntime.submit
log = logging.getLogger("carsearch")


def picture(colour: tuple[int, int, int]) -> bytes:
    """A PNG of one colour, which its crop has too."""
    return encoded(Image.new("RGB", (96, 72), colour), "PNG")


def colour_of(crop: Pixels) -> tuple[int, ...]:
    """The one colour of a crop; empty when there are several."""
    return tuple(crop[0, 0].tolist()) if (crop == crop[0, 0]).all() else ()


def submit_or_fail(runtime: OpenVINORuntime, crops: Pixels, *, lone: bool = False) -> Pending:
    """As OpenVINORuntime.submit, for crops without a fault."""
    colours = [colour_of(crop) for crop in crops]
    log.warning("embedding %d photos", len(crops))
    while Path(os.environ[GATE]).exists():
        time.sleep(WAITED_S)
    if POISON in colours or NO_MEMORY in colours:
        log.warning("a fault in a batch of %d", len(crops))
    if POISON in colours:
        raise ValueError("a bug in the network")
    if NO_MEMORY in colours or (CROWDED in colours and len(crops) > 1):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    pending = submit(runtime, crops, lone=lone)

    def wait() -> Embeddings:
        rows = pending.wait().copy()
        for row, colour in enumerate(colours):
            rows[row] = WRONG_ROWS.get(colour, rows[row])
        return rows

    return Pending(wait, pending.done)


if __name__ == "__main__":
    faulty: Any = OpenVINORuntime
    faulty.submit = submit_or_fail
    cli.main()
