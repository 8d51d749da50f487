"""Resize and crop: what a network sees of a photo, the same bits everywhere."""

import hashlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from model.card import InputSpec
from model.images.decode import decode
from model.images.transform import fit, prepare
from tests.support.photos import car_pixels, encoded


@pytest.mark.parametrize("sides", [(16, 16), (16, 320), (320, 16)])
def test_the_smallest_and_longest_photos_are_taken(sides: tuple[int, int]) -> None:
    assert prepare(encoded(Image.new("RGB", sides), "PNG"), InputSpec(72, 64)).shape == (64, 64, 3)


@pytest.mark.torch
@settings(max_examples=60, deadline=None)
@example(width=140, height=140, spec=(112, 96))
@given(
    width=st.integers(16, 300),
    height=st.integers(16, 300),
    spec=st.sampled_from([(256, 224), (112, 96), (72, 64), (65, 64), (64, 64), (71, 40)]),
)
def test_fit_is_torchvisions_resize_and_center_crop_to_the_last_rounding(
    width: int, height: int, spec: tuple[int, int]
) -> None:
    from torchvision import transforms

    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    resize = transforms.Resize(spec[0], transforms.InterpolationMode.BILINEAR, antialias=True)
    reference = transforms.CenterCrop(spec[1])(resize(Image.fromarray(pixels)))
    difference = fit(pixels, InputSpec(*spec)).astype(int) - np.asarray(reference)
    # Across and down are rounded one after the other: both may go the other way, in a pixel of noise in a thousand.
    assert abs(difference).max() <= 2
    assert (abs(difference) > 1).mean() < 0.001


def test_resizing_gives_the_same_bits_everywhere() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (301, 417, 3), np.uint8)
    bits = hashlib.sha256(fit(photo, InputSpec(96, 96, "stretch")).tobytes()).hexdigest()
    assert bits.startswith("c14446f308c15170")  # when these change, every embedding does: card.DECODER needs a new name


@pytest.mark.parametrize(
    "spec",
    [InputSpec(192, 192, "stretch"), InputSpec(96, 96, "stretch"), InputSpec(256, 224)],
    ids=str,
)
def test_the_crop_of_a_photo_that_is_decoded_reduced_is_that_of_the_whole_photo(spec: InputSpec) -> None:
    photo = Image.fromarray(car_pixels(0, 0)).resize((4032, 3024), Image.Resampling.BICUBIC)
    data = encoded(photo, "JPEG", quality=90)
    whole = fit(decode(data), spec).astype(int)
    assert abs(prepare(data, spec) - whole).mean() < 1
