"""Decoding: unusual photos are accepted for what they show, broken ones are refused in one way."""

import io
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.errors import (
    EmptyFile,
    ImageDegenerate,
    ImageRejected,
    ImageTooManyPixels,
    ImageUndecodable,
    UnsupportedImageFormat,
)
from model.images import decode as module
from model.images.decode import EXIF_ORIENTATION, MAX_PIXELS, MIN_SIDE, decode
from model.types import Pixels
from tests.support.photos import car_photo, car_pixels, encoded, flat_jpeg, heic, jpeg

PIXELS = car_pixels(0, 0)
PHOTO = Image.fromarray(PIXELS)
GREY = np.asarray(PHOTO.convert("L"))
T = Image.Transpose
STORED_AS = {
    1: None,
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_90,
    7: T.TRANSVERSE,
    8: T.ROTATE_270,
}
"""EXIF orientation -> how an upright picture lies in such a file."""


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """The IHDR chunk of an 8-bit grey PNG."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def png_bomb(width: int, height: int) -> bytes:
    """A PNG that is only a header."""
    return b"\x89PNG\r\n\x1a\n" + png_header(width, height)


def jpeg_bomb(width: int, height: int) -> bytes:
    """A small JPEG whose frame header declares another size."""
    data = car_photo()
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def webp_bomb(width: int, height: int) -> bytes:
    """An extended WebP that is only a header."""
    body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + body


def exif(orientation: int | bytes, kind: int = 3, count: int = 1) -> bytes:
    """An EXIF block with an orientation: by default one SHORT, as it should be; bytes are written as they are."""
    value = orientation if isinstance(orientation, bytes) else struct.pack("<I", orientation)
    return b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, kind, count, value, 0)


def modern(image: Image.Image, form: str, **options: object) -> bytes:
    """An AVIF or HEIC of high quality."""
    options = {"quality": 95, **options}
    return heic(image, **options) if form == "HEIC" else encoded(image, "AVIF", **options)


def as_grey(pixels: Pixels) -> Pixels:
    return np.repeat(pixels[..., None], 3, axis=2)


def test_a_progressive_jpeg_is_the_baseline_jpeg() -> None:
    assert np.array_equal(decode(jpeg(PIXELS, progressive=True)), decode(jpeg(PIXELS)))


def test_a_cmyk_jpeg_with_adobes_marker_is_not_a_negative() -> None:
    data = encoded(PHOTO.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert np.abs(decode(data).astype(int) - PIXELS).mean() < 6


def test_a_grey_jpeg_has_three_equal_channels() -> None:
    data = encoded(Image.fromarray(GREY), "JPEG", quality=95)
    assert np.array_equal(decode(data), as_grey(np.asarray(Image.open(io.BytesIO(data)))))


def test_a_one_bit_png_is_black_and_white() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(GREY > 128), "PNG")), as_grey((GREY > 128) * np.uint8(255)))


def test_a_16_bit_grey_png_keeps_the_high_byte() -> None:
    deep = GREY.astype(np.uint16) * 256 + 77
    assert np.array_equal(decode(encoded(Image.fromarray(deep), "PNG")), as_grey(GREY))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_hidden_under_transparency_is_white(mode: str) -> None:
    alpha = np.where(np.arange(PIXELS.shape[1]) < 40, 0, 255).astype(np.uint8)[None].repeat(len(PIXELS), axis=0)
    image = PHOTO.convert(mode)
    image.putalpha(Image.fromarray(alpha))
    shown = PIXELS if mode == "RGBA" else as_grey(GREY)
    expected = np.where(alpha[..., None] == 0, 255, shown)
    assert np.array_equal(decode(encoded(image, "PNG")), expected)
    if mode == "RGBA":
        assert np.array_equal(decode(encoded(image, "WEBP", lossless=True, exact=True)), expected)


def test_half_transparent_black_is_grey() -> None:
    assert np.unique(decode(encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 128)), "PNG"))).tolist() == [127]


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(0, (0, 0, 10, 20))
    pixels = decode(encoded(image, "PNG", transparency=0))
    assert np.unique(pixels[:, :10]).tolist() == [255]
    assert pixels[0, 10].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
    ("pixels", "key"),
    [
        (np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8), (9, 8, 7)),
        (np.array([[9, 8]], np.uint8), 9),
        (np.array([[0x0901, 0x0902]], np.uint16), 0x0901),
    ],
    ids=["RGB", "grey", "16-bit grey"],
)
def test_a_transparent_key_colour_is_white_and_its_neighbours_are_not(pixels: Pixels, key: object) -> None:
    image = Image.fromarray(pixels.repeat(20, axis=0).repeat(20, axis=1))
    stored = struct.pack(f">{'HHH' if isinstance(key, tuple) else 'H'}", *(key if isinstance(key, tuple) else (key,)))
    data = encoded(image, "PNG")
    place = data.index(b"IDAT") - 4
    shown = decode(data[:place] + chunk(b"tRNS", stored) + data[place:])
    plain = decode(data)
    assert np.unique(shown[:, :20]).tolist() == [255]
    assert np.array_equal(shown[:, 20:], plain[:, 20:])
    assert plain[0, 0, 0] == 9


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_every_orientation_shows_the_same_upright_picture(orientation: int, format_: str) -> None:
    stored = STORED_AS[orientation]
    image = PHOTO if stored is None else PHOTO.transpose(stored)
    lossless = {"lossless": True} if format_ == "WEBP" else {}
    assert np.array_equal(decode(encoded(image, format_, exif=exif(orientation), **lossless)), PIXELS)


@pytest.mark.parametrize(
    "block",
    [exif(0), exif(9), exif(65535), exif(b"six\0", 2, 4), exif(b"\x06\0\x03\0", 3, 2)],
    ids=["0", "9", "65535", "text", "two values"],
)
def test_an_impossible_orientation_counts_as_1(block: bytes) -> None:
    assert np.array_equal(decode(encoded(PHOTO, "PNG", exif=block)), PIXELS)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0" + b"junk" * 16_000,
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
    ],
    ids=["empty", "64 KB of junk", "cut directory", "directory loop"],
)
def test_broken_exif_counts_as_none(block: bytes) -> None:
    assert np.array_equal(decode(jpeg(PIXELS, exif=block)), decode(jpeg(PIXELS)))


def test_exif_with_its_signature_twice_still_counts() -> None:
    assert decode(jpeg(PIXELS, exif=b"Exif\0\0" + exif(6))).shape == (96, 72, 3)


def test_an_orientation_in_xmp_counts_where_exif_has_none() -> None:
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    assert decode(jpeg(PIXELS, xmp=xmp)).shape == (96, 72, 3)
    assert decode(jpeg(PIXELS, xmp=xmp, exif=exif(1))).shape == (72, 96, 3)


@pytest.mark.parametrize("format_", ["MPO", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_the_photo(format_: str) -> None:
    options: dict[str, object] = {"quality": 90} if format_ == "MPO" else {"lossless": True}
    others = [Image.fromarray(car_pixels(kind, 0)) for kind in (1, 2)]
    data = encoded(PHOTO, format_, save_all=True, append_images=others, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert np.array_equal(decode(data), decode(jpeg(PIXELS)) if format_ == "MPO" else PIXELS)


def test_data_after_the_photo_is_ignored() -> None:
    assert np.array_equal(decode(car_photo() + b"\0\0\0\x18ftypmp42" * 10_000), decode(car_photo()))


@pytest.mark.parametrize("profile", [b"", b"broken", bytes(1_000_000)])
def test_colour_profiles_are_ignored(profile: bytes) -> None:
    assert np.array_equal(decode(encoded(PHOTO, "PNG", icc_profile=profile)), PIXELS)


@pytest.mark.parametrize("form", ["AVIF", "HEIC"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_the_rotation_and_mirroring_of_avif_and_heic_is_applied(orientation: int, form: str) -> None:
    stored = STORED_AS[orientation]
    pixels = decode(modern(PHOTO if stored is None else PHOTO.transpose(stored), form, exif=exif(orientation)))
    assert pixels.shape == PIXELS.shape
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 12


def test_the_exif_of_a_heic_that_is_turned_already_is_not_applied_again() -> None:
    """A phone writes both."""
    data = modern(PHOTO, "HEIC", exif=exif(6))
    tag = struct.pack("<HHII", EXIF_ORIENTATION, 3, 1, 6)
    assert tag in data
    assert np.array_equal(decode(data), decode(data.replace(tag, struct.pack("<HHII", EXIF_ORIENTATION, 3, 1, 1))))
    assert decode(data).shape == (96, 72, 3)


def test_of_avif_neither_exif_nor_xmp_turns_the_photo() -> None:
    assert decode(modern(PHOTO, "AVIF", xmp=b'<rdf:Description tiff:Orientation="6"/>')).shape == (72, 96, 3)


@pytest.mark.parametrize("form", ["AVIF", "HEIC"])
def test_of_avif_and_heic_with_alpha_what_is_hidden_is_white_and_grey_is_grey(form: str) -> None:
    image = PHOTO.copy()
    image.putalpha(Image.new("L", PHOTO.size, 0))
    assert decode(modern(image, form)).min() > 250
    assert np.ptp(decode(modern(PHOTO.convert("L"), form)), axis=2).max() == 0


@pytest.mark.parametrize("side", [97, 98, 99])
def test_a_heic_of_an_odd_size_loses_what_its_codec_added(side: int) -> None:
    assert decode(modern(PHOTO.resize((side, 75)), "HEIC")).shape == (75, side, 3)


def test_of_a_moving_avif_the_first_frame_is_the_photo() -> None:
    others = [Image.fromarray(car_pixels(kind, 0)) for kind in (1, 2)]
    data = encoded(PHOTO, "AVIF", save_all=True, append_images=others, quality=95)
    assert data[8:12] == b"avis"
    assert np.abs(decode(data).astype(int) - PIXELS).mean() < 12


def test_a_heic_without_the_extra_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pillow_heif", None)
    for data in (modern(PHOTO, "HEIC"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic broken"):
        with pytest.raises(UnsupportedImageFormat, match=r"is a HEIC photo; install carsearch\[heif\]"):
            decode(data)


@pytest.mark.parametrize("format_", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_picture_formats_are_unsupported(format_: str) -> None:
    with pytest.raises(UnsupportedImageFormat):
        decode(encoded(PHOTO, format_))


@pytest.mark.parametrize("data", [b"hello, this is text", bytes(1000), b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0", b"\xff"])
def test_what_is_no_picture_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImageFormat):
        decode(data)


def test_an_empty_file_is_named_as_such() -> None:
    with pytest.raises(EmptyFile):
        decode(b"")


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "HEIC"])
@pytest.mark.parametrize("percent", [1, 10, 50, 90, 98])
def test_a_photo_that_is_cut_off_is_undecodable(format_: str, percent: int) -> None:
    data = heic(PHOTO) if format_ == "HEIC" else encoded(PHOTO, format_)
    with pytest.raises(ImageUndecodable):
        decode(data[: max(12, len(data) * percent // 100)])


@pytest.mark.parametrize("sides", [(50_000, 50_000), (16_383, 16_383), (16_385, 20), (5000, MAX_PIXELS // 5000 + 1)])
@pytest.mark.parametrize("bomb", [png_bomb, jpeg_bomb, webp_bomb])
def test_a_header_bomb_is_refused_before_pillow_sees_it(
    bomb: Callable[[int, int], bytes], sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(Image, "open", lambda *file, **_: opened.append(file))
    with pytest.raises(ImageTooManyPixels):
        decode(bomb(*sides))
    assert opened == []


def test_exactly_as_many_pixels_as_are_taken_pass_the_check_of_the_header() -> None:
    with pytest.raises(ImageUndecodable):
        decode(png_bomb(5000, MAX_PIXELS // 5000))


def test_a_second_header_behind_the_first_does_not_smuggle_in_another_size() -> None:
    strip = chunk(b"IDAT", zlib.compress(bytes(2 * 5000)))
    data = b"\x89PNG\r\n\x1a\n" + png_header(20, 20) + png_header(1, 5000) + strip + chunk(b"IEND", b"")
    with pytest.raises(ImageUndecodable):
        decode(data)


@pytest.mark.parametrize("sides", [(1, 1), (MIN_SIDE - 1, 100), (1, 10_000), (10_000, 1), (16, 321)])
def test_a_strip_or_speck_is_degenerate(sides: tuple[int, int]) -> None:
    with pytest.raises(ImageDegenerate):
        decode(encoded(Image.new("RGB", sides), "PNG"))


ORIGINALS = [
    car_photo(size=(32, 24)),
    jpeg(car_pixels(1, 0, (32, 24)), progressive=True, exif=exif(6)),
    *(encoded(Image.fromarray(car_pixels(2, 0, (32, 24))).convert(mode), "PNG") for mode in ("RGB", "P", "LA")),
    *(encoded(Image.fromarray(car_pixels(3, 0, (32, 24))), "WEBP", lossless=kind) for kind in (True, False)),
    encoded(Image.fromarray(car_pixels(4, 0, (32, 24))), "AVIF", exif=exif(6)),
    *(heic(Image.fromarray(car_pixels(5, 0, (80, 64))), tile_size=tile) for tile in (0, 64)),
]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=500, deadline=None)
@given(
    data=st.sampled_from(ORIGINALS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.tuples(st.floats(0, 1), st.floats(0, 0.2)),
    splice=st.binary(max_size=20),
)
def test_mutated_photos_give_pixels_or_a_rejection(
    data: bytes, flips: list[tuple[float, int]], cut: tuple[float, float], splice: bytes
) -> None:
    mutated = bytearray(data)
    for place, value in flips:
        mutated[int(place * len(mutated))] = value
    start = int(cut[0] * len(mutated))
    mutated[start : start + int(cut[1] * len(mutated))] = splice
    try:
        pixels = decode(bytes(mutated))
    except ImageRejected:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert min(pixels.shape[:2]) >= MIN_SIDE


@pytest.mark.parametrize(
    ("size", "side", "decoded"),
    [
        pytest.param((512, 384), 192, (512, 384), id="a benchmark photo is left whole"),
        pytest.param((767, 900), 192, (767, 900), id="not quite four times"),
        pytest.param((768, 901), 192, (384, 451), id="four times: a half leaves two"),
        pytest.param((4032, 3024), 192, (1008, 756), id="twelve megapixels"),
        pytest.param((4032, 3024), 96, (504, 378), id="twelve, for a small network"),
    ],
)
@pytest.mark.parametrize("direct", [True, False], ids=["simplejpeg", "pillow"])
def test_a_large_jpeg_is_reduced_while_it_is_decoded(
    size: tuple[int, int], side: int, decoded: tuple[int, int], direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not direct:
        monkeypatch.setattr(module, "simplejpeg", None)
    data = encoded(PHOTO.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=90)
    assert decode(data, side).shape == (decoded[1], decoded[0], 3)
    assert decode(data).shape == (size[1], size[0], 3)


@given(
    width=st.integers(64, 300),
    height=st.integers(64, 300),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    mode=st.sampled_from(["RGB", "L"]),
    side=st.integers(4, 40),
)
@settings(deadline=None)
def test_a_reduced_jpeg_has_the_bits_of_pillows_draft(
    width: int, height: int, subsampling: str, mode: str, side: int
) -> None:
    noise = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    data = encoded(Image.fromarray(noise).convert(mode), "JPEG", subsampling=subsampling)
    direct = decode(data, side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "simplejpeg", None)
        np.testing.assert_array_equal(decode(data, side), direct)


@given(
    width=st.integers(16, 70),
    height=st.integers(16, 70),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    quality=st.integers(5, 100),
    progressive=st.booleans(),
    mode=st.sampled_from(["RGB", "L"]),
    orientation=st.integers(0, 9),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_a_jpeg_decoded_by_simplejpeg_has_the_bits_of_pillow(
    width: int, height: int, subsampling: str, quality: int, progressive: bool, mode: str, orientation: int, seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    exif = Image.Exif()
    if orientation:
        exif[EXIF_ORIENTATION] = orientation
    buffer = io.BytesIO()
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive, "exif": exif}
    Image.fromarray(noise).convert(mode).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    direct = decode(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "simplejpeg", None)
        np.testing.assert_array_equal(decode(data), direct)


def test_a_plain_jpeg_is_decoded_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = decode(car_photo())
    monkeypatch.delattr(Image, "open")
    assert np.array_equal(decode(car_photo()), pixels)


def test_a_jpeg_that_is_cut_off_is_refused() -> None:
    with pytest.raises(ImageUndecodable):
        decode(car_photo()[:-200])


LARGE = (16_320, 12_240)


def scan_of_one_colour(data: bytes) -> bytes:
    """The same JPEG with one colour in its first scan: libjpeg then holds all coefficients."""
    scan = data.index(b"\xff\xda")
    return data[: scan + 2] + b"\0\x08\x01\x01\0\0\x3f\0" + data[scan + 14 :]


@pytest.mark.parametrize("direct", [True, False], ids=["simplejpeg", "pillow"])
def test_a_baseline_jpeg_of_200_megapixels_is_decoded_reduced(direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not direct:
        monkeypatch.setattr(module, "simplejpeg", None)
    data = flat_jpeg(*LARGE)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif(6))) + exif(6) + data[2:]
    for photo, shape in ((data, (1530, 2040, 3)), (turned, (2040, 1530, 3))):
        pixels = decode(photo, 192)
        assert pixels.shape == shape
        assert np.unique(pixels).tolist() == [128]


def test_a_baseline_jpeg_of_200_megapixels_takes_less_memory_than_50_megapixels(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(flat_jpeg(*LARGE))
    code = (
        "import resource, sys; from pathlib import Path; from model.images.decode import decode\n"
        "data = Path(sys.argv[1]).read_bytes(); peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); decode(data, 192); print(peak() - before)"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "large.jpg"], capture_output=True, check=True)
    assert int(told.stdout) < 3 * MAX_PIXELS / 1024  # kB


def test_a_large_jpeg_is_refused_where_it_would_not_be_reduced_or_not_by_rows() -> None:
    data = flat_jpeg(*LARGE)
    for photo, side in (
        (data, None),
        (data, 7000),
        (data.replace(b"\xff\xc0", b"\xff\xc2", 1), 192),
        (data.replace(b"\xff\xc0", b"\xff\xc9", 1), 192),
        (scan_of_one_colour(data), 192),
        (jpeg_bomb(*LARGE)[:300], 192),
        (jpeg_bomb(16_320, 12_256), 192),
        (png_bomb(*LARGE), 192),
    ):
        with pytest.raises(ImageTooManyPixels, match="at most 50 million are taken, 200 million of a JPEG that is not"):
            decode(photo, side)


UNENDED = {
    "baseline": jpeg(PIXELS),
    "with restarts": jpeg(PIXELS, restart_marker_blocks=2),
    "turned": jpeg(PIXELS, exif=exif(6)),
    "grey": encoded(Image.fromarray(GREY), "JPEG"),
    "CMYK": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "RGB": jpeg(PIXELS, keep_rgb=True),
}


@pytest.mark.parametrize("name", UNENDED)
def test_a_jpeg_that_lacks_only_its_end_marker_is_whole_and_one_cut_earlier_is_refused(name: str) -> None:
    data = UNENDED[name]
    for missing in (1, 2):
        assert np.array_equal(decode(data[:-missing]), decode(data))
    for missing in (*range(3, 40), len(data) // 4, len(data) // 2):
        with pytest.raises(ImageUndecodable):
            decode(data[:-missing])
    assert np.array_equal(decode(data + b"\0\0\0\x18ftypmp42"), decode(data))


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_progressive_jpeg_without_its_end_marker_is_cut(mode: str) -> None:
    """Whether its last scans are missing cannot be told."""
    data = encoded(PHOTO.convert(mode), "JPEG", progressive=True)
    scans = [place.start() for place in re.finditer(rb"\xff\xda", data)]
    assert len(scans) > 5
    for place in (*scans[1:], len(data) - 2, len(data) - 1):
        with pytest.raises(ImageUndecodable):
            decode(data[:place])


def test_where_pillow_alone_decodes_a_jpeg_must_have_its_end_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow does not tell that libjpeg found the picture cut."""
    monkeypatch.setattr(module, "simplejpeg", None)
    with pytest.raises(ImageUndecodable):
        decode(car_photo()[:-2])
