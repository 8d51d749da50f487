"""Photos and archives as a hostile sender might damage them: each is made from its seed alone, and can be made again.

python -m tests.support.mutants SEED > FILE         the photo of a seed
python -m tests.support.mutants --zip SEED > FILE   its archive
"""

import argparse
import io
import random
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from PIL import Image

from tests.e2e.catalogue.pictures import exif, oriented, sixteen_bits, ycck
from tests.support.bodies import tar_of
from tests.support.photos import car_photo, car_pixels, encoded, heic, jpeg

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Every marker but the escaped byte, restarts and fillings: good enough to take a file apart, its scans too.
JPEG_MARKER = re.compile(rb"(?=\xff[\xc0-\xcf\xd8-\xfe])")
ZIP_RECORD = re.compile(rb"(?=PK[\x01\x03\x05\x06][\x02\x04\x06\x07])")
# Where the boxes of an AVIF or HEIC begin that say something, at any depth.
BOX = re.compile(
    rb"(?=[\0\1].{3}(?:ftyp|meta|hdlr|pitm|iinf|infe|iref|dimg|auxl|iprp|ipco|ispe|hvcC|av1C|irot|imir|clap|pixi"
    rb"|ipma|iloc|idat|mdat|moov|trak|stsz))",
    re.DOTALL,
)
SIDES = (0, 1, 15, 16, 17, 20, 255, 256, 1024, 4096, 7071, 16_383, 16_384, 16_385, 32_768, 65_535)
BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
MAX_CHANGES = 3

Change = Callable[[bytes, random.Random], bytes]


class Mutant(NamedTuple):
    """A damaged file: the seed that gives it, what was done to which original, its bytes."""

    seed: int
    what: str
    data: bytes


@cache
def photos() -> dict[str, bytes]:
    """Whole photos of every kind that is taken, small, so that tens of thousands go through in minutes."""
    size = (64, 48)
    image = Image.fromarray(car_pixels(1, 0, size))
    others = [Image.fromarray(car_pixels(kind, 0, size)) for kind in (2, 3)]
    animated: dict[str, object] = {"save_all": True, "append_images": others}
    with_hole = image.convert("RGBA")
    with_hole.putalpha(Image.linear_gradient("L").resize(size))
    return {
        "JPEG": car_photo(1, 0, size),
        "progressive JPEG": jpeg(car_pixels(1, 1, size), progressive=True),
        "JPEG with restarts": jpeg(car_pixels(1, 2, size), restart_marker_blocks=2),
        "JPEG that lies on its side": jpeg(car_pixels(1, 3, size), exif=exif(6)),
        "large JPEG": jpeg(car_pixels(1, 4, (1024, 1024)), quality=20),
        "grey JPEG": encoded(image.convert("L"), "JPEG"),
        "CMYK JPEG": encoded(image.convert("CMYK"), "JPEG"),
        "YCCK JPEG": ycck(),
        "MPO": encoded(image, "MPO", **animated),
        "PNG": encoded(image, "PNG"),
        "PNG of a palette": encoded(image.quantize(16), "PNG", transparency=0),
        "PNG with alpha": encoded(with_hole, "PNG"),
        "1-bit PNG": encoded(image.convert("1"), "PNG"),
        "16-bit PNG": sixteen_bits(alpha=True),
        "PNG with EXIF": oriented(8),
        "APNG": encoded(image, "PNG", **animated),
        "WebP": encoded(image, "WEBP"),
        "lossless WebP": encoded(image, "WEBP", lossless=True),
        "WebP with alpha": encoded(with_hole, "WEBP", exif=exif(3)),
        "moving WebP": encoded(image, "WEBP", **animated),
        "AVIF": encoded(image, "AVIF", exif=exif(6)),
        "AVIF with alpha": encoded(with_hole, "AVIF"),
        "moving AVIF": encoded(image, "AVIF", **animated),
        "HEIC": heic(image, exif=exif(6)),
        "HEIC of tiles": heic(image.resize((192, 144)), tile_size=64),
        "HEIC with alpha": heic(with_hole),
    }


@cache
def archives() -> dict[str, bytes]:
    """Whole sets of two classes, as every kind of archive that is taken."""
    members = {f"{kind}/{shot}.jpg": car_photo(kind, shot, (48, 36)) for kind in range(2) for shot in range(2)}
    folders = {"val/": b"", **{f"val/{name}": data for name, data in members.items()}}
    korean = {name.replace("0/", "아반떼/"): data for name, data in members.items()}
    return {
        "zip": _zip(members),
        "deflated zip": _zip(folders, zipfile.ZIP_DEFLATED),
        "zip with Korean names": _zip(korean, zipfile.ZIP_DEFLATED),
        "tar": tar_of(members),
    }


def _zip(members: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> bytes:
    """A zip that is the same whenever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, packed)
    return buffer.getvalue()


def parts_of(data: bytes) -> list[bytes]:
    """A file cut where its segments, chunks or records begin; joined they are the file again."""
    if data.startswith(PNG_SIGNATURE):
        return [PNG_SIGNATURE, *_chunks(data[8:], ">I", 0, 12)]
    if data[:4] == b"RIFF":
        return [data[:12], *_chunks(data[12:], "<I", 4, 8)]
    if data[:2] == b"PK":
        return [part for part in ZIP_RECORD.split(data) if part]
    if data[4:8] == b"ftyp":
        return [part for part in BOX.split(data) if part]
    if data[:2] == b"\xff\xd8":
        return [part for part in JPEG_MARKER.split(data) if part]
    return [data[at : at + 512] for at in range(0, len(data), 512)]  # a tar's blocks


def _chunks(data: bytes, length: str, at: int, around: int) -> list[bytes]:
    """Chunks with a length of four bytes at `at` and `around` bytes beside what it counts; the rest as it is."""
    parts = []
    while len(data) > at + 4:
        (size,) = struct.unpack_from(length, data, at)
        end = around + size + (size & 1 if length == "<I" else 0)
        parts.append(data[:end])
        data = data[end:]
    return [*parts, data] if data else parts


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Some bits are others."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """Some bytes are the smallest, the largest, or any."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, count = rng.randrange(len(changed)), rng.choice((1, 2, 4, 16))
        value = bytes([rng.choice(BYTES)]) * count if rng.random() < 0.7 else rng.randbytes(count)
        changed[at : at + count] = value
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(1, len(data) + 1)]


def hollowed(data: bytes, rng: random.Random) -> bytes:
    """A stretch in the middle is missing, or there twice."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 200))
    return data[:start] + (data[start:end] * 2 if rng.random() < 0.5 else b"") + data[end:]


def spliced(data: bytes, rng: random.Random) -> bytes:
    """It begins as one file and goes on as another."""
    other = rng.choice(list((archives() if data[:2] == b"PK" else photos()).values()))
    return data[: rng.randrange(1, len(data) + 1)] + other[rng.randrange(len(other)) :]


def rearranged(data: bytes, rng: random.Random) -> bytes:
    """Parts change places, are there twice, are missing, or come from another file."""
    parts = parts_of(data)
    place, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    match rng.randrange(4):
        case 0:
            parts[place], parts[other] = parts[other], parts[place]
        case 1:
            parts.insert(other, parts[place])
        case 2:
            del parts[place]
        case _:
            donor = parts_of(rng.choice(list((archives() if data[:2] == b"PK" else photos()).values())))
            parts.insert(place, rng.choice(donor))
    return b"".join(parts)


def misdeclared(data: bytes, rng: random.Random) -> bytes:
    """A part says that it is longer or shorter than it is."""
    parts = parts_of(data)
    place = rng.randrange(len(parts))
    part = bytearray(parts[place])
    if data.startswith(PNG_SIGNATURE):
        form, at = ">I", 0
    elif data[:4] == b"RIFF":
        form, at = "<I", 4
    elif data[4:8] == b"ftyp":
        form, at = ">I", 0
    elif data[:2] == b"PK":  # sizes and offsets of the three records lie between these
        form, at = "<I", rng.randrange(14, 46)
    else:
        form, at = ">H", 2
    size = struct.calcsize(form)
    if len(part) < at + size:
        return flipped(data, rng)
    (length,) = struct.unpack_from(form, part, at)
    most = (1 << 8 * size) - 1
    told = rng.choice((0, 1, length - 1, length + 1, length * 2, most, most // 2, rng.randint(0, most)))
    struct.pack_into(form, part, at, max(0, min(most, told)))
    parts[place] = bytes(part)
    return b"".join(parts)


def resized(data: bytes, rng: random.Random) -> bytes:
    """The header declares other sides."""
    parts = parts_of(data)
    for place, part in enumerate(parts):
        form, at = _sides(part)
        size = struct.calcsize(form)
        if form and len(part) >= at + 2 * size:
            changed = bytearray(part)
            for number in rng.choice(((0,), (1,), (0, 1))):
                side = rng.choice(SIDES) if rng.random() < 0.7 else rng.randint(0, 2048)
                struct.pack_into(form, changed, at + number * size, side)
            parts[place] = bytes(changed)
            return b"".join(parts)
    return overwritten(data, rng)


def _sides(part: bytes) -> tuple[str, int]:
    """How and where a part declares the sides of the picture; an empty form where it declares none."""
    if part[4:8] == b"ispe":
        return ">I", 12
    if part[4:8] == b"IHDR":
        return ">I", 8
    if part[:4] == b"VP8 ":
        return "<H", 14
    if part[:4] == b"VP8X":
        return (
            "<H",
            12,
        )  # of three bytes each: the second one that is written hits the first one's end, which is as good
    if part[:2] in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2"):
        return ">H", 5
    return "", 0


CHANGES: tuple[Change, ...] = (flipped, overwritten, cut, hollowed, spliced, rearranged, misdeclared, resized)


def mutate(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """One to MAX_CHANGES changes, and their names; half of the PNGs get right checksums, else nothing is looked at."""
    names = []
    for _ in range(rng.randint(1, MAX_CHANGES)):
        change = rng.choice(CHANGES)
        data = change(data, rng) or data[:1]
        names.append(change.__name__)
    if data.startswith(PNG_SIGNATURE) and rng.random() < 0.5:
        data = with_checksums(data)
        names.append("with checksums")
    return data, ", ".join(names)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that they should have."""
    parts = parts_of(data)
    for place, part in enumerate(parts[1:], 1):
        if len(part) >= 12 and struct.unpack_from(">I", part)[0] == len(part) - 12:
            parts[place] = part[:-4] + struct.pack(">I", zlib.crc32(part[4:-4]))
    return b"".join(parts)


def photo(seed: int) -> Mutant:
    """The damaged photo of a seed."""
    return _mutant(photos(), seed)


def archive(seed: int) -> Mutant:
    """The damaged archive of a seed."""
    return _mutant(archives(), seed)


def _mutant(originals: dict[str, bytes], seed: int) -> Mutant:
    rng = random.Random(seed)
    name = rng.choice(list(originals))
    data, what = mutate(originals[name], rng)
    return Mutant(seed, f"{name}: {what}", data)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.mutants", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--zip", action="store_true")
    chosen = parser.parse_args()
    made = archive(chosen.seed) if chosen.zip else photo(chosen.seed)
    sys.stderr.write(f"{made.what}\n")
    sys.stdout.buffer.write(made.data)


if __name__ == "__main__":
    main()
