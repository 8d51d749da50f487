"""The container of AVIF and HEIC: its size is read by us, and nothing inside it may be larger than that."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.errors import ImageRejected, ImageTooManyPixels, ImageUndecodable
from model.images import coded_size
from model.images.coded_size import NO_SIZE, av1_sizes, config_sizes, hevc_sizes
from model.images.decode import decode
from model.images.header import read_header
from model.images.heif import MAX_UNITS, only_still, read_still
from tests.support.photos import car_pixels, encoded, heic

SIZE = (200, 144)
PHOTO = Image.fromarray(car_pixels(0, 0, SIZE))
KINDS: dict[str, Callable[[], bytes]] = {
    "AVIF": lambda: encoded(PHOTO, "AVIF"),
    "AVIF with alpha": lambda: encoded(with_alpha(), "AVIF"),
    "HEIC": lambda: heic(PHOTO),
    "HEIC with alpha": lambda: heic(with_alpha()),
    "HEIC of tiles": lambda: heic(PHOTO, tile_size=64),
}


def with_alpha() -> Image.Image:
    image = PHOTO.copy()
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    return image


def declaring(data: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """The file with another size in its container, wherever the old one stands there."""
    changed = data.replace(b"ispe\0\0\0\0" + struct.pack(">II", *old), b"ispe\0\0\0\0" + struct.pack(">II", *new))
    for rows in (b"\0\0\0\3", b"\0\0\2\3"):  # the header of a grid of four columns
        changed = changed.replace(rows + struct.pack(">HH", *old), rows + struct.pack(">HH", *new))
    return changed


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_is_the_declared_one_and_the_decoded_one(kind: str) -> None:
    data = KINDS[kind]()
    assert read_header(data) == (kind[:4], *SIZE, 1)
    assert decode(data).shape == (144, 200, 3)


@settings(max_examples=20, deadline=None)
@given(width=st.integers(16, 150), height=st.integers(16, 150), tile=st.sampled_from([0, 64]))
def test_a_heic_is_decoded_to_its_size_but_for_what_the_codec_added(width: int, height: int, tile: int) -> None:
    data = heic(Image.new("RGB", (width, height)), tile_size=tile)
    _, declared_width, declared_height, _ = read_still(data)
    assert decode(data).shape == (height, width, 3)
    assert width <= declared_width <= max(width + 1, 64)
    assert height <= declared_height <= max(height + 1, 64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lie", [(16, 144), (200, 16), (64, 64)])
def test_a_picture_that_is_larger_than_declared_meets_no_decoder(
    kind: str, lie: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(pillow_heif, "open_heif")
    monkeypatch.delattr(Image, "open")
    with pytest.raises(ImageUndecodable, match=r"larger than (declared|the whole)|broken grid"):
        decode(declaring(KINDS[kind](), SIZE, lie))


def test_a_tile_that_is_larger_than_declared_meets_no_decoder() -> None:
    tiles = heic(Image.new("RGB", (4 * 256, 256)), tile_size=256)
    lying = declaring(declaring(tiles, (256, 256), (128, 128)), (1024, 256), (512, 128))
    with pytest.raises(ValueError, match="larger than declared"):
        read_still(lying)


@pytest.mark.parametrize("kind", ["AVIF", "HEIC"])
def test_the_limit_of_pixels_is_that_of_other_photos(kind: str) -> None:
    with pytest.raises(ImageTooManyPixels):
        decode(declaring(KINDS[kind](), SIZE, (7072, 7072)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_is_smaller_than_declared_is_refused_or_has_no_more_pixels(kind: str) -> None:
    try:
        pixels = decode(declaring(KINDS[kind](), SIZE, (2000, 1440)))
    except ImageRejected:
        return
    assert pixels.size <= 3 * 2000 * 1440


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_no_photo(kind: str) -> None:
    data = KINDS[kind]()
    for length in (*range(0, 600, 7), len(data) // 2, len(data) - 1):
        if read := data[:length]:
            with pytest.raises(ImageRejected):
                decode(read)


@pytest.mark.parametrize("kind", KINDS)
def test_notes_behind_the_photo_are_ignored_and_no_decoder_sees_them(kind: str) -> None:
    data = KINDS[kind]()
    for notes in (b"\0\0\0\x18mpvd" + bytes(16), b"SEFT" * 9, bytes(40), b"\0\0\0\x08mini"):
        assert np.array_equal(decode(data + notes), decode(data))
        end = only_still(data + notes, kind[:4])[len(data) :]
        assert not any(word in end for word in (b"mpvd", b"SEFT", b"mini"))


def test_a_film_is_hidden_from_the_decoder() -> None:
    data = encoded(PHOTO, "AVIF", save_all=True, append_images=[Image.new("RGB", SIZE)])
    still = only_still(data, "AVIF")
    assert (b"moov" in data, b"moov" in still, len(still)) == (True, False, len(data))
    with Image.open(io.BytesIO(still)) as image:
        assert getattr(image, "n_frames", 1) == 1
    plain = KINDS["AVIF"]()
    assert only_still(plain, "AVIF") is plain


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["AVIF", "HEIC of tiles"]),
    changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_changed_container_gives_a_size_or_a_value_error(kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE[kind])
    for place, value in changes:
        data[place] = value
    try:
        header = read_header(bytes(data))
    except ValueError:
        return
    assert header is None or header.orientation in range(1, 9)


WHOLE = {kind: KINDS[kind]() for kind in ("AVIF", "HEIC of tiles")}


def test_the_size_in_a_unit_of_hevc_is_read_wherever_the_unit_lies() -> None:
    data = heic(Image.new("RGB", (640, 480)))
    start = data.index(b"hvcC") + 4
    config = data[start : start + int.from_bytes(data[start - 8 : start - 4], "big") - 8]
    assert set(config_sizes(config)) == {NO_SIZE, (640, 480)}
    place = config.index(b"\x42\x01")
    unit = config[place - 2 :][: 2 + int.from_bytes(config[place - 2 : place], "big")]
    assert list(hevc_sizes(b"\0\0" + unit)) == [(640, 480)]
    with pytest.raises(ValueError, match="layers"):
        list(hevc_sizes(b"\0\0" + unit.replace(b"\x42\x01", b"\x42\x09")))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (201, 145), (640, 480)])
def test_the_size_in_the_header_of_av1_is_read(width: int, height: int) -> None:
    data = encoded(Image.new("RGB", (width, height)), "AVIF")
    payload = data[data.index(b"mdat") + 4 :]
    assert set(av1_sizes(payload)) == {NO_SIZE, (width, height)}
    with pytest.raises(ValueError, match="no header of its codec"):
        list(av1_sizes(b"\x12\0"))


def test_a_frame_of_av1_with_a_size_of_its_own_may_be_as_large_as_its_bits_can_say() -> None:
    """A sequence header of 200 x 144 in 8 bits each, then a key frame that has a size of its own."""
    sequence = bits("000 0 0 0 0 00000 000000000000 00000 0111 0111 11000111 10001111 0 000 0000 0 1 1 0000000")
    own_size, of_sequence = bits("0 00 1 0 0 1 0"), bits("0 00 1 0 0 0 0")
    start = b"\x0a" + bytes([len(sequence)]) + sequence
    assert list(av1_sizes(start + b"\x1a\1" + of_sequence)) == [(200, 144), NO_SIZE]
    assert list(av1_sizes(start + b"\x1a\1" + own_size)) == [(200, 144), (256, 256)]


def bits(text: str) -> bytes:
    """Bytes from bits, filled up with zeros."""
    digits = text.replace(" ", "")
    return int(digits.ljust(-(-len(digits) // 8) * 8, "0"), 2).to_bytes(-(-len(digits) // 8), "big")


# A unit of HEVC that declares 16 x 16 pixels.
SEQUENCE_UNIT = b"\x42\1" + bits(f"0000 000 0 {96 * '0'} 1 010 000010001 000010001 {16 * '0'}")


def box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def tiled(config: bytes, payload: bytes, spans: list[tuple[int, int]], extents: int = 1, targets: int = 0) -> bytes:
    """A HEIC of a row of tiles of 16 x 16 that share one `hvcC`; `spans` are offset and length of each in `payload`.

    `extents` is in how many parts each tile says that it lies, `targets` how many tiles the grid says that it has.
    """
    count, numbers = len(spans), range(2, 2 + len(spans))
    sizes = [box(b"ispe", bytes(4), struct.pack(">II", wide, 16)) for wide in (16 * count, 16)]
    kinds = [box(b"infe", struct.pack(">BxxxHxx4s", 2, 1 + n, b"hvc1" if n else b"grid")) for n in range(1 + count)]
    properties = [struct.pack(">HBB", 1, 1, 1), *(struct.pack(">HBBB", n, 2, 2, 3) for n in numbers)]
    places = [struct.pack(">HHxxHII", 1 + n, 1, extents if n else 1, *span) for n, span in enumerate([(0, 8), *spans])]
    number = struct.pack(">H", 1 + count)
    meta = (
        box(b"pitm", bytes(4), b"\0\1"),
        box(b"iinf", bytes(4), number, *kinds),
        box(b"iprp", box(b"ipco", *sizes, box(b"hvcC", config)), box(b"ipma", bytes(4), b"\0\0", number, *properties)),
        box(b"iloc", b"\1\0\0\0\x44\0", number, *places),
        box(b"iref", bytes(4), box(b"dimg", struct.pack(f">HH{count}H", 1, targets or count, *numbers))),
        box(b"idat", struct.pack(">BBBBHH", 0, 0, 0, count - 1, 16 * count, 16), payload),
    )
    return box(b"ftyp", b"heic", bytes(4), b"mif1heic") + box(b"meta", bytes(4), *meta)


def config_of(units: int) -> bytes:
    """An `hvcC` with so many units."""
    unit = struct.pack(">H", len(SEQUENCE_UNIT)) + SEQUENCE_UNIT
    return bytes(21) + b"\3\1\x21" + struct.pack(">H", units) + units * unit


UNIT = struct.pack(">I", len(SEQUENCE_UNIT)) + SEQUENCE_UNIT


@pytest.mark.parametrize(
    ("hostile", "message", "most_units"),
    [
        (lambda: tiled(config_of(50), UNIT, [(8, len(UNIT))] * 200), None, 51),
        (lambda: tiled(config_of(65_000), UNIT, [(8, len(UNIT))] * 200), "too many units", MAX_UNITS),
        (
            lambda: tiled(config_of(1), (10 << 20) // len(UNIT) * UNIT, [(8, 10_000_000)] * 200),
            "too many units",
            MAX_UNITS,
        ),
        (lambda: tiled(config_of(1), 400 * UNIT, [(8, n * len(UNIT)) for n in range(1, 200)]), "overlap", 0),
        (lambda: tiled(config_of(1), bytes(10 << 20), [(8, 9)] * 200, extents=60_000), "too many parts", 0),
        (lambda: tiled(config_of(1), bytes(10 << 20), [(8, 9)] * 200, targets=60_000), "too many parts", 0),
    ],
    ids=["shared units", "units of a header", "units of data", "overlapping data", "extents", "references"],
)
def test_a_hostile_header_has_its_parts_read_once_and_no_more_than_a_bounded_number(
    hostile: Callable[[], bytes], message: str | None, most_units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []

    class Counting(coded_size.Bits):
        def __init__(self, data: bytes) -> None:
            read.append(data)
            super().__init__(data)

    monkeypatch.setattr(coded_size, "Bits", Counting)
    if message is None:
        assert read_still(hostile()) == ("HEIC", 200 * 16, 16, 1)
    else:
        with pytest.raises(ValueError, match=message):
            read_still(hostile())
    assert len(read) <= most_units + 1
