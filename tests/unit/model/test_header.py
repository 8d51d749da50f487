"""The size read from the first bytes is the size Pillow finds, and broken headers say so."""

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.images.header import ImageHeader, is_decoded_by_rows, read_header
from tests.support.photos import car_photo, car_pixels, encoded, jpeg

AVIF = b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf\0\0\0\x20meta\0\0\0\0"

ENCODINGS: dict[str, tuple[str, str, dict[str, object]]] = {
    "baseline JPEG": ("RGB", "JPEG", {}),
    "progressive JPEG": ("RGB", "JPEG", {"progressive": True}),
    "grey JPEG": ("L", "JPEG", {}),
    "JPEG with EXIF": ("RGB", "JPEG", {"exif": b"Exif\0\0" + bytes(1000)}),
    "PNG": ("RGB", "PNG", {}),
    "interlaced palette PNG": ("P", "PNG", {"optimize": True}),
    "lossy WebP": ("RGB", "WEBP", {"quality": 50}),
    "lossless WebP": ("RGB", "WEBP", {"lossless": True}),
    "extended lossy WebP": ("RGBA", "WEBP", {"quality": 50, "exif": b"Exif\0\0II*\0"}),
    "extended lossless WebP": ("RGB", "WEBP", {"lossless": True, "exif": b"Exif\0\0II*\0"}),
    "AVIF": ("RGB", "AVIF", {"quality": 20, "speed": 10}),
    "AVIF with alpha": ("RGBA", "AVIF", {"quality": 20, "speed": 10}),
}
PHOTOS = {
    "JPEG": car_photo(),
    "PNG": encoded(Image.fromarray(car_pixels(0, 0)), "PNG"),
    "WEBP": encoded(Image.fromarray(car_pixels(0, 0)), "WEBP"),
}


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400))
def test_the_size_is_the_one_that_pillow_finds(name: str, width: int, height: int) -> None:
    mode, format_, options = ENCODINGS[name]
    data = encoded(Image.new(mode, (width, height)), format_, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert read_header(data) == ImageHeader(format_, *image.size) == (format_, width, height, 1)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"GIF89a" + bytes(40), b"RIFF\0\0\0\0WAVEfmt ", b"BM" + bytes(60)])
def test_other_formats_are_none_of_the_three(data: bytes) -> None:
    assert read_header(data) is None


@pytest.mark.parametrize("name", PHOTOS)
def test_a_header_cut_anywhere_gives_none_a_value_error_or_the_right_size(name: str) -> None:
    data = PHOTOS[name]
    outcomes: list[ImageHeader | str | None] = []
    for length in range(700):
        try:
            outcomes.append(read_header(data[:length]))
        except ValueError as problem:
            outcomes.append(str(problem))
    whole = (name, 96, 72, 1)
    assert outcomes[-1] == whole
    first = outcomes.index(ImageHeader(*whole))
    assert set(outcomes[first:]) == {whole}
    assert all(outcome is None or isinstance(outcome, str) for outcome in outcomes[:first])


def test_fill_bytes_and_bare_markers_before_the_frame_are_passed_over() -> None:
    data = car_photo()
    padded = data[:2] + b"\xff\xff\xff\x01" + b"\xff\xff\xff\xfe\x00\x04hi" + data[2:]
    assert read_header(padded) == ("JPEG", 96, 72, 1)


@settings(max_examples=100, deadline=None)
@given(
    place=st.integers(1, 3),
    junk=st.lists(st.sampled_from([b"\0", b"a", b"\xd8", b"\xc0", b"\xff\0", b"\xff\xd0"]), max_size=9).map(b"".join),
    filling=st.integers(0, 3),
)
def test_stray_bytes_between_segments_are_passed_over_as_pillow_does(place: int, junk: bytes, filling: int) -> None:
    data = car_photo()
    start = 2
    for _ in range(place):
        start += 2 + struct.unpack(">H", data[start + 2 : start + 4])[0]
    strewn = data[:start] + junk + b"\xff" * filling + data[start:]
    with Image.open(io.BytesIO(strewn)) as image:
        assert read_header(strewn) == ImageHeader("JPEG", *image.size) == ("JPEG", 96, 72, 1)


def test_tables_between_the_frame_markers_are_no_frames() -> None:
    table = b"\xff\xc4\x00\x0b" + struct.pack(">BHHBBH", 8, 9999, 9999, 3, 1, 0)
    data = car_photo()
    assert read_header(data[:2] + table + data[2:]) == ("JPEG", 96, 72, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xda\x00\x08" + bytes(40),
        b"\xff\xd8\xff\xd9" + bytes(40),
        b"\xff\xd8\xff\xc0\x00\x0b\x08\0\x40\0\x40\1\1\x11\0\xff\xd9" + bytes(40),
        b"\xff\xd8\xff\xe0\x00\x01" + bytes(40),
        b"\xff\xd8\xff\xe0\x00\x04\0\0\0\0\0\0\0\0\0\0",
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIDAT" + bytes(20),
        b"RIFF\x40\0\0\0WEBPALPH" + bytes(30),
        b"RIFF\x40\0\0\0WEBPVP8 \x20\0\0\0" + bytes(20),
        b"RIFF\x40\0\0\0WEBPVP8L\x20\0\0\0" + bytes(20),
    ],
    ids=[
        "scan first",
        "end first",
        "end before the scan",
        "short segment",
        "no marker",
        "no IHDR",
        "alpha first",
        "no VP8 key",
        "no VP8L key",
    ],
)
def test_a_recognised_format_with_a_broken_header_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the (JPEG|PNG|WebP) has "):
        read_header(data)


@settings(max_examples=300)
@given(
    start=st.sampled_from(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8X", b"", AVIF]
    ),
    rest=st.binary(max_size=200),
)
def test_any_bytes_give_a_header_none_or_a_value_error(start: bytes, rest: bytes) -> None:
    try:
        header = read_header(start + rest)
    except ValueError:
        return
    assert header is None or header.format in ("JPEG", "PNG", "WEBP")


@pytest.mark.parametrize(
    ("options", "by_rows"),
    [({}, True), ({"keep_rgb": True}, True), ({"restart_marker_blocks": 1}, True), ({"progressive": True}, False)],
    ids=["baseline", "RGB", "with restarts", "progressive"],
)
def test_whether_a_jpeg_is_decoded_by_rows(options: dict[str, object], by_rows: bool) -> None:
    data = jpeg(car_pixels(0, 0), **options)
    assert is_decoded_by_rows(data) is by_rows
    assert not is_decoded_by_rows(data[:160])


def test_a_jpeg_with_a_second_frame_is_not_taken_for_one_that_is_decoded_by_rows() -> None:
    data = car_photo()
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    second = b"\xff\xc2" + data[frame + 2 : frame + 19]
    assert not is_decoded_by_rows(data[:scan] + second + data[scan:])


@pytest.mark.parametrize(
    "between",
    [40_000 * b"\xff\xe0\0\2", 70_000 * b"\0", 300 * b"\xff\xe1\0\x09Exif\0\0x"],
    ids=["segments", "stray bytes", "parts of EXIF"],
)
@pytest.mark.parametrize("marker", [b"\xff\xc0", b"\xff\xda"])
def test_a_jpeg_with_more_before_its_scan_than_any_photo_has_is_refused(between: bytes, marker: bytes) -> None:
    data = car_photo()
    place = data.index(marker)
    assert read_header(data[:place] + between[: len(between) // 10] + data[place:]) == ("JPEG", 96, 72, 1)
    with pytest.raises(ValueError, match="too many segments"):
        read_header(data[:place] + between + data[place:])


def test_a_progressive_jpeg_has_a_bounded_number_of_scans() -> None:
    """libjpeg goes over the whole picture for each, and 14 bytes make one."""
    data = jpeg(car_pixels(0, 0), progressive=True)
    scan = data.rindex(b"\xff\xda")
    assert read_header(data[:scan] + 50 * data[scan : scan + 10] + data[scan:]) == ("JPEG", 96, 72, 1)
    with pytest.raises(ValueError, match="too many scans"):
        read_header(data[:scan] + 100 * data[scan : scan + 10] + data[scan:])
