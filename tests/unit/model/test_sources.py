"""Photos as Python code holds them: every kind gives the crop that the file gives, under the same limits."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.embedder import Embedder
from model.errors import (
    CarsearchError,
    FileUnreadable,
    ImageDegenerate,
    ImageTooManyPixels,
    ImageUndecodable,
    UnsupportedImageFormat,
)
from model.images.decode import EXIF_ORIENTATION, decode
from model.images.sources import PhotoSource
from tests.support.photos import car_photo, car_pixels, encoded

SIDEWAYS = 6


def opened(data: bytes) -> Image.Image:
    """The image as Pillow opens it: not read yet."""
    return Image.open(io.BytesIO(data))


def closed(data: bytes) -> Image.Image:
    """An image that was closed before it was read."""
    with Image.open(io.BytesIO(data)) as image:
        return image


def sideways_photo() -> bytes:
    """A PNG whose EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = SIDEWAYS
    return encoded(Image.fromarray(car_pixels(1, 2)), "PNG", exif=exif)


@pytest.mark.parametrize("kind", ["text", "path", "image", "pixels", "flipped twice"])
def test_every_kind_of_photo_gives_the_crop_of_the_file(kind: str, tmp_path: Path, fake_embedder: Embedder) -> None:
    data = sideways_photo()
    (tmp_path / "photo.png").write_bytes(data)
    pixels = decode(data)
    photos: dict[str, PhotoSource] = {
        "text": str(tmp_path / "photo.png"),
        "path": tmp_path / "photo.png",
        "image": opened(data),
        "pixels": pixels,
        "flipped twice": np.ascontiguousarray(pixels[..., ::-1])[..., ::-1],
    }
    assert np.array_equal(fake_embedder.prepare(photos[kind]), fake_embedder.prepare(data))
    assert np.array_equal(fake_embedder.embed_photo(photos[kind]), fake_embedder.embed_photo(data))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_an_image_of_any_mode_is_taken(mode: str, fake_embedder: Embedder) -> None:
    image = Image.fromarray(car_pixels(1, 2))
    converted = image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    assert converted.mode == mode
    assert fake_embedder.prepare(converted).shape == (32, 32, 3)


def test_transparency_becomes_white_as_in_a_file(fake_embedder: Embedder) -> None:
    image = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    assert (fake_embedder.prepare(image) == 255).all()
    assert np.array_equal(fake_embedder.prepare(image), fake_embedder.prepare(encoded(image, "PNG")))


@pytest.mark.parametrize(
    ("photo", "problem", "words"),
    [
        pytest.param(np.zeros((32, 32, 3)), UnsupportedImageFormat, "not float64", id="floats"),
        pytest.param(np.zeros((32, 32), np.uint8), UnsupportedImageFormat, r"\(32, 32\)", id="grey"),
        pytest.param(np.zeros((32, 32, 4), np.uint8), UnsupportedImageFormat, r"\(32, 32, 4\)", id="four channels"),
        pytest.param(np.zeros((0, 0, 3), np.uint8), ImageDegenerate, "0 x 0", id="nothing"),
        pytest.param(np.zeros((15, 99, 3), np.uint8), ImageDegenerate, "99 x 15", id="low"),
        pytest.param(np.broadcast_to(np.uint8(0), (16, 400, 3)), ImageDegenerate, "400 x 16", id="wide"),
        pytest.param(np.broadcast_to(np.uint8(0), (9000, 9000, 3)), ImageTooManyPixels, "9000", id="large"),
        pytest.param(Image.new("RGB", (16_385, 900)), ImageTooManyPixels, "16385 x 900", id="long image"),
        pytest.param(opened(car_photo()[:-200]), ImageUndecodable, "cut off", id="cut off"),
        pytest.param(closed(car_photo()), ImageUndecodable, "closed", id="closed"),
        pytest.param(b"", CarsearchError, "empty", id="no bytes"),
        pytest.param("nowhere.jpg", FileUnreadable, "nowhere.jpg: The file cannot be read", id="no file"),
        pytest.param(Path("/"), FileUnreadable, "/: The file is a folder", id="a folder"),
    ],
)
def test_what_is_no_photo_is_refused(
    photo: PhotoSource, problem: type[CarsearchError], words: str, fake_embedder: Embedder
) -> None:
    with pytest.raises(problem, match=words):
        fake_embedder.prepare(photo)
