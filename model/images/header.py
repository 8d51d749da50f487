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
SEQUENTIAL = (0xC0, 0xC1)
"""Frame markers of sequential JPEGs that use Huffman codes; those that use arithmetic codes are rare."""
END_OF_IMAGE, START_OF_SCAN, METADATA = 0xD9, 0xDA, 0xE1
# The next marker that has a length or ends the search. As in Pillow, these are skipped like stray bytes:
# FF 00 (an escaped byte), FF FF (filling), and markers without a length or of unknown length.
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xc8\xd0-\xd8\xf0-\xfd\xff]")
MAX_BETWEEN_BYTES = 1 << 16
"""Markers and stray bytes up to the first scan."""
MAX_METADATA = 256
"""Segments of EXIF or XMP: Pillow copies what it has of EXIF for each."""
SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
"""How a scan of one to four colours begins."""
MAX_SCANS = 100
"""The most scans of a JPEG that is not decoded by rows. libjpeg passes over the whole picture for each scan.

Encoders write about ten.
"""


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
    """The markers of a JPEG up to its first scan, but those without a length: each with the place of the byte after it.

    Raises ValueError where there are so many that Pillow, which walks over them too, would take long.
    """
    position, between, metadata, last = 2, 0, 0, len(data) - 2
    while (found := JPEG_MARKER.search(data, position)) and (end := found.end()) <= last:
        marker = data[end - 1]
        between += end - position
        if marker == METADATA:
            metadata += 1
        if between > MAX_BETWEEN_BYTES or metadata > MAX_METADATA:
            raise ValueError("the JPEG has too many segments")
        yield marker, end
        if marker in (START_OF_SCAN, END_OF_IMAGE):
            return
        position = end + max(data[end] << 8 | data[end + 1], 2)  # as both decoders take an impossible length


def _jpeg_size(data: bytes) -> tuple[int, int]:
    frame = marker = position = 0
    for marker, position in _jpeg_segments(data):
        if not frame and marker in JPEG_FRAME_MARKERS:
            frame = position
    if not frame or frame + 7 > len(data) or marker == END_OF_IMAGE:
        raise ValueError("the JPEG has no frame header, or an end before its scan")
    one_scan = marker == START_OF_SCAN and data[position + 2 : position + 3] == data[frame + 7 : frame + 8]
    if not (one_scan and data[frame - 1] in SEQUENTIAL) and len(SCAN.findall(data)) > MAX_SCANS:
        raise ValueError("the JPEG has too many scans")
    height, width = struct.unpack_from(">HH", data, frame + 3)
    return width, height


def is_decoded_by_rows(data: bytes) -> bool:
    """True for a JPEG that libjpeg decodes row by row: sequential, with all colours in one scan.

    Of any other JPEG, such as a progressive one, libjpeg holds all coefficients, two bytes each, at every reduction.
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


def has_metadata(data: bytes) -> bool:
    """True for a JPEG with a segment that may hold EXIF or XMP. Either may state an orientation."""
    return any(marker == METADATA for marker, _ in _jpeg_segments(data))


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
