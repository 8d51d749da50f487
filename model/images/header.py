"""Format and size of a photo from its first bytes, before any decoder allocates memory for it.

Pillow checks its pixel limit only after the plugin's constructor has run, and the WebP constructor allocates two whole
canvases first. Only the three formats that carsearch accepts are recognised.
"""

import re
import struct
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers hold the dimensions; C4, C8 and CC lie in the same range but are tables.
JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# The next marker that has a length or ends the search. As in Pillow, these are skipped like stray bytes:
# FF 00 (an escaped byte), FF FF (filling), and markers without a length or of unknown length.
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xc8\xd0-\xd8\xf0-\xfd\xff]")


class ImageHeader(NamedTuple):
    """A recognised format ("JPEG", "PNG" or "WEBP") and the size in pixels that the file declares."""

    format: str
    width: int
    height: int


def read_header(data: bytes) -> ImageHeader | None:
    """Format and declared size of a photo; None when it is none of the three formats.

    Raises ValueError when the format is recognised but the header is cut or broken.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return ImageHeader("JPEG", *_jpeg_size(data))
    if data.startswith(PNG_SIGNATURE):
        return ImageHeader("PNG", *_png_size(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImageHeader("WEBP", *_webp_size(data))
    return None


def _png_size(data: bytes) -> tuple[int, int]:
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise ValueError("the PNG has no header")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = 2
    while (found := JPEG_MARKER.search(data, position)) and found.end() + 2 <= len(data):
        position, marker = found.end(), data[found.end() - 1]
        if marker in JPEG_FRAME_MARKERS:
            if position + 7 > len(data):
                break
            height, width = struct.unpack(">HH", data[position + 3 : position + 7])
            return width, height
        if marker in (0xD9, 0xDA):  # end of image or scan data before any frame
            break
        length = struct.unpack(">H", data[position : position + 2])[0]
        if length < 2:
            raise ValueError("the JPEG has a segment of impossible length")
        position += length
    raise ValueError("the JPEG has no frame header")


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise ValueError("the WebP has no frame header")
    if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    raise ValueError("the WebP has no frame header")
