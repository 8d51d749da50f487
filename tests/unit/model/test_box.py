"""The box of a photo: what is cut, from which decoded size, and which boxes are none."""

import numpy as np
import pytest
from PIL import Image

from model.card import InputSpec
from model.embedder import Embedder
from model.errors import ImageUndecodable, InvalidBox
from model.images.box import Box, decode_box
from model.images.decode import decode
from model.images.transform import fit, prepare
from model.types import Pixels
from tests.support.photos import car_photo, car_pixels, encoded, jpeg

PIXELS = car_pixels(1, 0, (300, 200))
PNG = encoded(Image.fromarray(PIXELS), "PNG")


def smooth(width: int, height: int) -> Pixels:
    """A picture of slow waves, of which a reduced one is nearly the same."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin(across / 90), np.cos(down / 70), np.sin((across + down) / 110)]
    return (127 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


@pytest.mark.parametrize(
    ("text", "box"),
    [("1,2,30,40", (1, 2, 30, 40)), ("-5,-6,30,40", (-5, -6, 30, 40)), ("007,0,30,40", (7, 0, 30, 40))],
)
def test_a_box_is_four_whole_numbers(text: str, box: tuple[int, ...]) -> None:
    assert Box.parse(text) == box


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "1, 2, 3, 4", "1,2,-3,4", "1.0,2,3,4", "\u0661,2,3,4", "1e3,2,3,4"]
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(InvalidBox, match="four whole numbers"):
        Box.parse(text)


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((10, 20, 30, 40), (10, 20, 30, 40)),
        ((0, 0, 300, 200), (0, 0, 300, 200)),
        ((-10, -20, 50, 60), (0, 0, 40, 40)),
        ((280, 150, 500, 500), (280, 150, 20, 50)),
    ],
)
def test_what_lies_in_the_photo_is_cut(box: tuple[int, int, int, int], inside: tuple[int, int, int, int]) -> None:
    x, y, width, height = inside
    assert np.array_equal(decode_box(PNG, Box(*box), 32), PIXELS[y : y + height, x : x + width])


@pytest.mark.parametrize(
    "box",
    [(0, 0, 15, 100), (0, 0, 100, 0), (300, 0, 50, 50), (0, -50, 50, 50), (285, 0, 50, 50), (0, 0, 330, 15)],
)
def test_a_box_with_too_little_of_the_photo_is_refused(box: tuple[int, int, int, int]) -> None:
    for data in (PNG, jpeg(PIXELS)):
        with pytest.raises(InvalidBox, match="at least 16 pixels a side inside the photo, which has 300 x 200"):
            decode_box(data, Box(*box), 32)


def test_a_strip_is_refused_before_it_is_resized() -> None:
    with pytest.raises(InvalidBox, match="20 times"):
        Box(0, 0, 1000, 40).within(1000, 100)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_of_a_jpeg_is_that_of_its_upright_pixels(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(PIXELS, exif=exif.tobytes())
    upright = decode(data)
    assert np.array_equal(decode_box(data, Box(20, 30, 90, 100), 64), upright[30:130, 20:110])


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("width", [1200, 600, 300])
def test_a_jpeg_is_reduced_by_what_its_box_allows(orientation: int, width: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(smooth(2000, 1600), exif=exif.tobytes(), quality=95)
    box = Box(101, 203, width, width)
    reduction = {1200: 8, 600: 4, 300: 2}[width]
    cut = decode_box(data, box, 64)
    assert abs(cut.shape[0] - width / reduction) <= 2
    spec = InputSpec(resize=64, crop=64)
    difference = fit(cut, spec).astype(int) - fit(box.cut(decode(data)), spec)
    assert np.abs(difference).max() <= 8


def test_without_a_box_nothing_changes_and_with_one_a_model_sees_the_part(fake_embedder: Embedder) -> None:
    photo, spec = car_photo(1, 0, (300, 200)), fake_embedder.card.input
    assert np.array_equal(fake_embedder.prepare(photo), prepare(photo, spec))
    box = Box(30, 40, 100, 80)
    wanted = fit(decode(photo)[40:120, 30:130], spec)
    for source in (photo, decode(photo), Image.fromarray(decode(photo))):
        assert np.array_equal(fake_embedder.prepare(source, box), wanted)


def test_a_damaged_photo_is_told_as_such() -> None:
    for data in (jpeg(PIXELS)[:900], jpeg(PIXELS)[:60], b"\xff\xd8\xff\xe1\x00\x08Exif\0\0" + jpeg(PIXELS)[2:800]):
        with pytest.raises(ImageUndecodable):
            decode_box(data, Box(0, 0, 64, 64), 32)
