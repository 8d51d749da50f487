"""Names of the kinds of files that people take for photos and that cannot be read, for the error's sentence."""

import re
import struct

from model.images.heif import brands_of

STARTS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"%PDF-", "a PDF"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\x01\0", "an icon"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)"),
    (b"IIU\0", "a camera's raw file (RW2)"),
    (b"IIRO", "a camera's raw file (ORF)"),
    (b"IIRS", "a camera's raw file (ORF)"),
    (b"MMOR", "a camera's raw file (ORF)"),
    (b"\x1a\x45\xdf\xa3", "a film"),
    (b"PK\x03\x04", "a zip"),
)
TIFF = {b"II*\0": "<", b"MM\0*": ">"}
DNG_VERSION, MAKE, SUB_DIRECTORIES = 50706, 271, 330
MAX_ENTRIES = 200
# "++" and "(?>": nothing is tried again, which would take time exponential in the number of comments.
SVG = re.compile(rb"\A(?:\xef\xbb\xbf)?(?>\s++|<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE[^>]*>)*+<svg[\s>/]", re.DOTALL)
SVG_BYTES = 4096


def foreign_kind(data: bytes) -> str | None:
    """What a file is that is no photo we read, with its article: "a GIF"; None where that cannot be told."""
    for start, kind in STARTS:
        if data.startswith(start):
            return kind
    if data[:4] in TIFF:
        return _kind_of_tiff(data, TIFF[data[:4]])
    brands = brands_of(data)
    if brands:
        return "a camera's raw file (CR3)" if b"crx " in brands else "a film"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "a film"
    return "an SVG" if SVG.match(data[:SVG_BYTES]) else None


def _kind_of_tiff(data: bytes, order: str) -> str:
    """Cameras' raw files are TIFFs, told by the tags of their first directory."""
    if data[8:10] == b"CR":
        return "a camera's raw file (CR2)"
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        tags = {
            struct.unpack_from(f"{order}H", data, at + 2 + 12 * entry)[0] for entry in range(min(count, MAX_ENTRIES))
        }
    except struct.error:
        return "a TIFF"
    if DNG_VERSION in tags:
        return "a camera's raw file (DNG)"
    return "a camera's raw file (NEF, ARW or the like)" if {MAKE, SUB_DIRECTORIES} <= tags else "a TIFF"
