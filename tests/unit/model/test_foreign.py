"""Files that people take for photos are called what they are."""

import struct

import pytest
from PIL import Image

from model.errors import UnsupportedImageFormat
from model.images.decode import decode
from tests.support.photos import encoded

PHOTO = Image.new("RGB", (32, 24))


def tiff_of(*tags: int) -> bytes:
    """A TIFF that is only a directory."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, 0) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


FILES = {
    "a GIF": encoded(PHOTO, "GIF"),
    "a BMP": encoded(PHOTO, "BMP"),
    "a TIFF": encoded(PHOTO, "TIFF"),
    "an icon": encoded(PHOTO, "ICO"),
    "a JPEG 2000": encoded(PHOTO, "JPEG2000"),
    "a JPEG XL": b"\xff\x0a" + bytes(20),
    "a PDF": b"%PDF-1.7",
    "an SVG": b'<?xml version="1.0"?>\n<!-- a car -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "a film": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
    "a camera's raw file (CR2)": b"II*\0\x10\0\0\0CR\2\0",
    "a camera's raw file (CR3)": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "a camera's raw file (DNG)": tiff_of(254, 271, 330, 50706),
    "a camera's raw file (NEF, ARW or the like)": tiff_of(254, 271, 272, 330),
    "a zip": b"PK\3\4" + bytes(26),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_a_known_kind_is_named(kind: str) -> None:
    with pytest.raises(UnsupportedImageFormat) as refused:
        decode(FILES[kind])
    assert str(refused.value) == f"The file is {kind}, not a JPEG, PNG, WebP, AVIF or HEIC photo."


@pytest.mark.parametrize("data", [b"II*\0", b"MM\0*\xff\xff\xff\xff", tiff_of(256, 257), b"II*\0\x08\0\0\0\xff\xff"])
def test_a_tiff_with_another_or_no_directory_is_a_tiff(data: bytes) -> None:
    with pytest.raises(UnsupportedImageFormat, match=r"^The file is a TIFF, not a JPEG"):
        decode(data)


# The last ones took hours: an expression that tries again is exponential in the number of comments.
@pytest.mark.parametrize(
    "data",
    [b"hello, this is text", bytes(1000), b"<p>see <svg/></p>", b"\xff", b"<!---->" * 500, b" " * 4096],
    ids=["text", "zeros", "HTML", "a byte", "comments", "blanks"],
)
def test_a_file_of_another_kind_is_told_what_is_read(data: bytes) -> None:
    with pytest.raises(UnsupportedImageFormat, match=r"^The file is not a JPEG, PNG, WebP, AVIF or HEIC photo\.$"):
        decode(data)
