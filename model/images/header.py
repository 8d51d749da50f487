"""Format and size of a photo from its bytes, before any decoder allocates memory for it.

Pillow checks its pixel limit only after the plugin's constructor has run, and the WebP constructor allocates two whole
canvases first. Only the formats that carsearch accepts are recognised; `foreign_kind` has names for some others.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from model.images.heif import BRANDS, brands_of, read_still

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers hold the dimensions; C4, C8 and CC lie in the same range but are tables.
JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2
"""Frame markers of JPEGs that use Huffman codes; those that use arithmetic codes are rare."""
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
COEFFICIENTS = 64
# The next marker that has a length or ends the search. As in Pillow, these are skipped like stray bytes:
# FF 00 (an escaped byte), FF FF (filling), and markers without a length or of unknown length.
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xc8\xd0-\xd8\xf0-\xfd\xff]")


class ImageHeader(NamedTuple):
    """A recognised format ("JPEG", "PNG", "WEBP", "AVIF" or "HEIC") and the size in pixels that the file declares.

    `orientation` is what the container of an AVIF or HEIC says, as a number of EXIF's, and 1 for other formats.
    """

    format: str
    width: int
    height: int
    orientation: int = 1


def read_header(data: bytes) -> ImageHeader | None:
    """Format and declared size of a photo; None when it is of none of the formats.

    Raises ValueError when the format is recognised but the header is cut or broken.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return ImageHeader("JPEG", *_jpeg_size(data))
    if data.startswith(PNG_SIGNATURE):
        return ImageHeader("PNG", *_png_size(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImageHeader("WEBP", *_webp_size(data))
    if brands_of(data) & BRANDS:
        return ImageHeader(*read_still(data))
    return None


def _png_size(data: bytes) -> tuple[int, int]:
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise ValueError("the PNG has no header")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG that have a length, and the end marker: each with the place of the byte after it."""
    position = 2
    while (found := JPEG_MARKER.search(data, position)) and found.end() + 2 <= len(data):
        position = found.end()
        yield data[position - 1], position
        length = struct.unpack(">H", data[position : position + 2])[0]
        if length < 2:
            raise ValueError("the JPEG has a segment of impossible length")
        position += length


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, position in _jpeg_segments(data):
        if marker in JPEG_FRAME_MARKERS and position + 7 <= len(data):
            height, width = struct.unpack(">HH", data[position + 3 : position + 7])
            return width, height
        if marker in JPEG_FRAME_MARKERS or marker in (END_OF_IMAGE, START_OF_SCAN):  # cut, or no frame before these
            break
    raise ValueError("the JPEG has no frame header")


def is_decoded_by_rows(data: bytes) -> bool:
    """Whether a JPEG is decoded row by row: sequential, and all its colours in one scan.

    Of others, progressive ones first of all, libjpeg holds all coefficients, two bytes each, however much it reduces.
    """
    components = 0
    for marker, position in _jpeg_segments(data):
        if marker in JPEG_FRAME_MARKERS:
            if marker not in SEQUENTIAL or components:
                return False
            components = data[position + 7] if position + 7 < len(data) else 0
        elif marker == START_OF_SCAN:
            return components > 0 and position + 2 < len(data) and data[position + 2] == components
        elif marker == END_OF_IMAGE:
            break
    return False


def lacks_only_end(data: bytes) -> bool:
    """Whether a JPEG has no end marker, but scans that give every coefficient in full; the last may still be cut.

    Raises ValueError or IndexError for a header that is cut or broken.
    """
    if data.endswith(b"\xff\xd9"):
        return False
    frame, missing_bits = 0, dict[int, list[int]]()
    for marker, position in _jpeg_segments(data):
        if marker in JPEG_FRAME_MARKERS:
            if missing_bits or (marker not in SEQUENTIAL and marker != PROGRESSIVE):
                return False
            frame, count = marker, data[position + 7]
            missing_bits = {
                identity: [16] * COEFFICIENTS for identity in data[position + 8 : position + 8 + 3 * count : 3]
            }
        elif marker == START_OF_SCAN:
            body = data[position + 2 : position + struct.unpack(">H", data[position : position + 2])[0]]
            if not body or len(body) < 4 + 2 * body[0]:
                return False
            first, last, low = body[-3], body[-2], body[-1] & 15
            whole = frame in SEQUENTIAL
            for identity in body[1 : 1 + 2 * body[0] : 2]:
                bits = missing_bits.get(identity, [])
                for place in range(COEFFICIENTS) if whole else range(first, min(last + 1, COEFFICIENTS)):
                    if bits:
                        bits[place] = 0 if whole else low
        elif marker == END_OF_IMAGE:
            return False
    return bool(missing_bits) and not any(any(bits) for bits in missing_bits.values())


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
