"""What the fuzzer calls with bytes of its own: each target raises when anything comes out that may not."""

import io
import operator
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from model import archive as archives
from model.card import InputSpec
from model.errors import CarsearchError, ImageRejected
from model.images import decode as preprocess
from model.images.header import read_header
from model.images.transform import prepare

SPEC = InputSpec(resize=32, crop=24)
"""Small, so that even small JPEGs are decoded reduced."""

MAX_PIXELS = 300_000
"""Fewer than what is served: a fuzzer is to try many headers and not to wait for large pictures."""

LIMITS = archives.ArchiveLimits(entries=40, unpacked_bytes=1 << 20, photo_bytes=1 << 16)


def decode(data: bytes) -> None:
    """A photo gives pixels of its header's size (a HEIC fewer) and a crop, or it is a kind of ImageRejected."""
    preprocess.MAX_PIXELS, preprocess.MAX_JPEG_PIXELS = MAX_PIXELS, 4 * MAX_PIXELS
    try:
        pixels = preprocess.decode(data)
        crop = prepare(data, SPEC)
    except ImageRejected:
        return
    header = read_header(data)
    assert header is not None
    sides, declared = sorted(pixels.shape[:2]), sorted((header.width, header.height))
    assert sides == declared or (header.format == "HEIC" and all(map(operator.le, sides, declared)))
    assert pixels.size <= 3 * MAX_PIXELS
    assert pixels.dtype == np.uint8
    assert crop.dtype == np.uint8
    assert crop.shape == (SPEC.crop, SPEC.crop, 3)


def archive(data: bytes) -> None:
    """A set has photos within the limits and with names that lead nowhere else, or is a kind of CarsearchError."""
    try:
        photos, skipped = archives.read_archive(io.BytesIO(data), LIMITS)
    except CarsearchError:
        return
    assert len(photos) + len(skipped) <= LIMITS.entries
    total = 0
    for photo in photos:
        assert not photo.id.startswith("/")
        assert ".." not in photo.id.split("/")
        try:
            size = len(photo.read())
        except CarsearchError:  # damaged inside
            continue
        assert size <= LIMITS.photo_bytes
        total += size
    assert total <= LIMITS.unpacked_bytes


def decode_unguarded(data: bytes) -> None:
    """A decoder that expects what Pillow's manual names, and nothing else: the fuzzer must find what it forgot."""
    try:
        with Image.open(io.BytesIO(data), formats=preprocess.ACCEPTED_FORMATS) as image:
            image.load()
    except (UnidentifiedImageError, OSError):
        return


def archive_unguarded(data: bytes) -> None:
    """The archive reader as it would be if it expected what the two modules' manuals name, and nothing else."""
    archives.DAMAGED = (zipfile.BadZipFile, tarfile.TarError)  # type: ignore[assignment]  # fewer than there are
    archive(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decode": decode,
    "archive": archive,
    "decode-unguarded": decode_unguarded,
    "archive-unguarded": archive_unguarded,
}


def write_seeds(name: str, folder: Path) -> None:
    """What a target begins with: whole photos or archives, and files of foreign kinds."""
    from tests.e2e.catalogue.pictures import foreign
    from tests.support import mutants

    whole = mutants.archives() if name.startswith("archive") else mutants.photos() | foreign()
    for number, data in enumerate(whole.values()):
        (folder / f"{number:02}").write_bytes(data)
