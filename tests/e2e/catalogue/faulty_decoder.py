"""A server whose decoder breaks when a photo asks for it: `python -m tests.e2e.catalogue.faulty_decoder serve ...`.

A photo asks with `asking`: what stands behind its end no decoder looks at.
"""

import ctypes
import io
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import simplejpeg
from PIL import Image

from service.cli.main import main

MARK = b"fault:"
HANG_S = 60


def asking(photo: bytes, fault: str) -> bytes:
    """A photo at which the decoder breaks; `fault` is one of FAULTS, for some of them with an argument behind it."""
    return photo + MARK + fault.encode()


def _memory(_: str) -> None:
    bytearray(sys.maxsize)


def _recursion(_: str) -> None:
    _recursion(_)


def _overflow(_: str) -> None:
    (1 << 64).to_bytes(8, "big")


def _struct(_: str) -> None:
    struct.unpack(">I", b"abc")


def _segmentation(_: str) -> None:
    ctypes.string_at(0)


def _hang(release: str) -> None:
    """Until a file appears, which is a test's way to let go, and no longer than HANG_S."""
    deadline = time.monotonic() + HANG_S
    while not Path(release).exists() and time.monotonic() < deadline:
        time.sleep(0.02)


FAULTS: dict[str, Callable[[str], None]] = {
    "MemoryError": _memory,
    "RecursionError": _recursion,
    "OverflowError": _overflow,
    "error": _struct,  # what struct calls its own
    "SIGSEGV": _segmentation,
    "hang": _hang,
    "simplejpeg": lambda _: None,  # it alone fails: see `install`
}


def break_where_asked(data: bytes) -> None:
    """Does to this thread or process what the photo asks for."""
    _, asked, rest = data.rpartition(MARK)
    if asked:
        name, _, argument = rest.decode().partition(" ")
        FAULTS[name](argument)


def install() -> None:
    """Puts the faults before both decoders."""
    opened, decoded = Image.open, simplejpeg.decode_jpeg

    def faulty_open(file: io.BytesIO, *arguments: Any, **options: Any) -> Image.Image:
        if isinstance(file, io.BytesIO):
            break_where_asked(file.getvalue())
        return opened(file, *arguments, **options)

    def faulty_decode_jpeg(data: bytes, *arguments: Any, **options: Any) -> Any:
        if data.endswith(MARK + b"simplejpeg"):
            _memory("")
        return decoded(data, *arguments, **options)

    Image.open = faulty_open  # type: ignore[assignment]  # it takes the one kind of file that the service gives
    simplejpeg.decode_jpeg = faulty_decode_jpeg


if __name__ == "__main__":
    install()
    main()
