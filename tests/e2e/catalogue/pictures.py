"""Pictures for the catalogue: one photo as every kind of file that a camera or an attacker might make of it."""

import gzip
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import service
from model.types import Pixels
from tests.support.photos import encoded, jpeg

QUERY = Path(service.__file__).parent / "demo" / "data" / "queries" / "1.jpg"
PHOTO = Image.open(QUERY).convert("RGB").resize((256, 192))
PIXELS: Pixels = np.asarray(PHOTO)
GREY = PHOTO.convert("L")
BITS = PHOTO.convert("1")
PALETTE = PHOTO.quantize(64)
HOLE = np.zeros((192, 256), np.uint8)
HOLE[60:140, 80:200] = 255

STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera lays down a picture that is upright when its orientation is heeded."""


class Picture(NamedTuple):
    """A file of the catalogue: its number there, what it is, how it is made.

    It must be answered with `code`; when that is "ok", the picture in the gallery whose class is `twin` must have at
    least the cosine `least`, or whatever is found will do where there is no twin.
    """

    number: str
    what: str
    make: Callable[[], bytes]
    code: str = "ok"
    twin: str = ""
    least: float = 0.999


def twins() -> dict[str, Image.Image]:
    """The plain pictures that the unusual ones must mean, by class."""
    transparent = np.asarray(PALETTE) == 0
    on_white = np.where(transparent[..., None], 255, np.asarray(PALETTE.convert("RGB"))).astype(np.uint8)
    hole = np.where(HOLE[..., None] == 0, 255, PIXELS).astype(np.uint8)
    return {
        "plain": PHOTO,
        "grey": GREY.convert("RGB"),
        "bits": BITS.convert("RGB"),
        "palette": Image.fromarray(on_white),
        "hole": Image.fromarray(hole),
    }


def png(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "PNG", **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, depth: int, colour: int, *rest: bytes) -> bytes:
    """A PNG by hand: its header, chunks, and its end."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(rest) + chunk(b"IEND", b"")


def sixteen_bits(alpha: bool) -> bytes:
    values = PIXELS.astype(np.uint16) * 257
    if alpha:
        values = np.dstack([values, np.full(values.shape[:2], 65535, np.uint16)])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png_of(256, 192, 16, 6 if alpha else 2, chunk(b"IDAT", zlib.compress(rows)))


def ycck() -> bytes:
    """Luminance and chrominance of the inks, as Photoshop writes them; Pillow only writes the inks themselves."""
    inks = Image.fromarray(255 - PIXELS).convert("YCbCr")
    stored = np.dstack([np.asarray(inks), np.full(PIXELS.shape[:2], 255, np.uint8)])
    data = encoded(_cmyk(255 - stored), "JPEG", quality=95)
    at = data.index(b"Adobe") + 11
    return data[:at] + b"\x02" + data[at + 1 :]


def _cmyk(channels: Pixels) -> Image.Image:
    return Image.merge("CMYK", [Image.fromarray(channels[..., number]) for number in range(4)])


def without_adobe() -> bytes:
    data = encoded(PHOTO.convert("CMYK"), "JPEG", quality=95)
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def hidden_noise(seed: int) -> bytes:
    pixels = np.where(HOLE[..., None] == 0, np.random.default_rng(seed).integers(0, 256, PIXELS.shape), PIXELS)
    return png(Image.fromarray(np.dstack([pixels.astype(np.uint8), HOLE])))


def exif(value: object, kind: int = 3, count: int = 1) -> bytes:
    """An EXIF block with the orientation alone; `kind` is its type in TIFF."""
    raw = struct.pack("<H", value) if isinstance(value, int) else value
    assert isinstance(raw, bytes)
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", 0x0112, kind, count) + raw.ljust(4, b"\0") + bytes(4)


def oriented(orientation: int) -> bytes:
    way = STORED_AS[orientation]
    return png(PHOTO if way is None else PHOTO.transpose(way), exif=exif(orientation)[6:])


def animated(format_: str, frames: int) -> bytes:
    others = [Image.new("RGB", PHOTO.size, (number % 256, 0, 0)) for number in range(frames - 1)]
    options: dict[str, object] = {"lossless": True} if format_ == "WEBP" else {}
    return encoded(PHOTO, format_, save_all=True, append_images=others, **options)


def with_segments(number: int) -> bytes:
    data = jpeg(PIXELS, quality=95)
    return data[:2] + b"\xff\xfe\x00\x04xx" * number + data[2:]


def with_text_chunks(number: int) -> bytes:
    data = png(PHOTO)
    return data[:33] + chunk(b"tEXt", b"a\0b") * number + data[33:]


def inflating(kind: bytes, start: bytes) -> bytes:
    """A PNG with a chunk of text or profile that unpacks to 1 GB."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    data = png(PHOTO)
    return data[:33] + chunk(kind, start + packed) + data[33:]


def webp_header(width: int, height: int) -> bytes:
    body = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + body


def jpeg_header(width: int, height: int) -> bytes:
    frame = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    return b"\xff\xd8" + frame + b"\xff\xd9"


def one_colour(width: int, height: int) -> bytes:
    """A whole PNG of grey, packed a thousand times: only what is refused from its header is small when decoded."""
    packer = zlib.compressobj(9)
    rows = bytes((1 + width) * 64)
    packed = b"".join(packer.compress(rows[: (1 + width) * min(64, height - row)]) for row in range(0, height, 64))
    return png_of(width, height, 8, 0, chunk(b"IDAT", packed + packer.flush()))


def cuts(data: bytes) -> Iterator[tuple[str, bytes]]:
    for percent in (1, 10, 50, 90, 99):
        yield f"{percent} %", data[: max(3, len(data) * percent // 100)]


def jpeg_markers(data: bytes) -> list[int]:
    """Where each segment of a JPEG begins, up to its first scan."""
    found, at = [], 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        found.append(at)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return [*found, at]


def foreign() -> dict[str, bytes]:
    """Files of kinds that are not taken, by name."""
    box = b"\0\0\0\x18ftyp%s\0\0\0\0mif1heic"
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    made = {kind: encoded(PHOTO.convert("P") if kind == "PCX" else PHOTO, kind) for kind in _WRITABLE}
    return made | {
        "SVG": svg,
        "SVGZ": gzip.compress(svg),
        "MP4": box.replace(b"mif1heic", b"mp42isom") % b"mp42",
        "JXL": b"\0\0\0\x0cJXL \r\n\x87\n",
        "FITS": b"SIMPLE  =                    T".ljust(2880),
        "PSD": b"8BPS\0\x01" + bytes(6) + b"\0\x03\0\0\0\x10\0\0\0\x10\0\x08\0\x03",
        "FLI": b"\x80\0\0\0\x11\xaf" + bytes(122),
        "BLP": b"BLP2" + bytes(200),
        "PDF": b"%PDF-1.4\n1 0 obj\n<< >>\nendobj\n",
        "text": b"hello, this is text",
        "zeros": bytes(4096),
        "random": random.Random(34).randbytes(4096),
        "PHP": b"<?php system($_GET[0]); ?>",
    }


# Written by Pillow.
_WRITABLE = ("GIF", "BMP", "TIFF", "ICO", "TGA", "PCX", "SGI", "DDS", "EPS", "JPEG2000", "PPM")


def lying_riff() -> bytes:
    data = bytearray(encoded(PHOTO, "WEBP"))
    data[4:8] = struct.pack("<I", 0x7FFFFFF0)
    return bytes(data)


def broken_png(what: str) -> bytes:
    data = bytearray(png(PHOTO, compress_level=0 if what == "pixel" else 6))
    at = data.index(b"IDAT")
    if what == "checksum":
        end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
        data[end] ^= 0xFF
    elif what in ("stream", "pixel"):
        data[at + 20 : at + 60] = bytes(40)
        end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
        data[end : end + 4] = struct.pack(">I", zlib.crc32(bytes(data[at:end])))
    elif what == "end":
        del data[-12:]
    return bytes(data)
