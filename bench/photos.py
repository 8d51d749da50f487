"""Photos to measure with: as many as asked for, no two of them of equal content.

The indexer embeds equal content once, so a repeated JPEG gets a comment of its own: another sha256, the same pixels.
"""

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from model.dataset import read_items
from model.errors import DataInvalid

SIZE = (512, 384)
DIFFERENT = 64
SOI, APP0, COMMENT = b"\xff\xd8", b"\xff\xe0", b"\xff\xfe"


@dataclass(frozen=True, slots=True)
class MemoryPhoto:
    """A photo in memory."""

    id: str
    data: bytes
    label: str = ""

    def read(self) -> bytes:
        return self.data


def made_up_photos(count: int) -> list[MemoryPhoto]:
    """JPEGs of 512 x 384 with about as much detail as a photo; what they show does not matter to speed."""
    return _repeated([_made_up(number) for number in range(min(count, DIFFERENT))], count)


def photos_of(source: Path, count: int) -> list[MemoryPhoto]:
    """Up to `count` photos of a set, evenly through it; JPEGs of a smaller one are repeated."""
    items = read_items(source).items
    used = min(count, len(items))
    return _repeated([items[place * len(items) // used].read() for place in range(used)], count)


def write_distinct(photos: Sequence[Path], count: int, folder: Path) -> Path:
    """Writes `count` different JPEGs as class folders, repeating `photos`; raises DataInvalid for other formats."""
    for number in range(count):
        source = photos[number % len(photos)]
        target = folder / source.parent.name / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        data = source.read_bytes()
        if not data.startswith(SOI):
            raise DataInvalid(f"{source.name} is not a JPEG and cannot be repeated.")
        target.write_bytes(_with_comment(data, number))
    return folder


def _made_up(number: int) -> bytes:
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = pixels + random.normal(0, 6, pixels.shape).astype(np.int16)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _repeated(photos: list[bytes], count: int) -> list[MemoryPhoto]:
    made = [MemoryPhoto(str(number), data) for number, data in enumerate(photos)]
    jpegs = [data for data in photos if data.startswith(SOI)]
    again = itertools.cycle(jpegs) if jpegs else iter(())
    for data in itertools.islice(again, max(0, count - len(made))):
        made.append(MemoryPhoto(str(len(made)), _with_comment(data, len(made))))
    return made


def _with_comment(data: bytes, number: int) -> bytes:
    place = len(SOI)
    if data[place : place + 2] == APP0:  # JFIF wants to be first
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data[:place] + COMMENT + b"\x00\x0a" + f"{number:08d}".encode() + data[place:]
