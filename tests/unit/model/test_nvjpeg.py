"""Decoding on a device: the class that runs nvJPEG, run with a CPU's libjpeg."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import model.images.nvjpeg
from model.card import NVJPEG, InputSpec, load_card
from model.embedder import Embedder
from model.errors import ImageRejected, ImageUndecodable, ModelMismatch, SettingsInvalid
from model.images.nvjpeg import Encoded, NvjpegPreparation, nvjpeg
from model.images.transform import prepare
from tests.support.photos import car_photo, car_pixels, encoded, flat_jpeg, jpeg

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
SPEC = InputSpec(resize=72, crop=64)
PLAIN = car_photo(0, 0, (200, 150))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(car_pixels(1, 1, (120, 90)), exif=exif)


OTHERS = {
    "png": encoded(Image.fromarray(car_pixels(2, 0)), "PNG"),
    "webp": encoded(Image.fromarray(car_pixels(2, 1)), "WEBP", lossless=True),
    "cmyk": encoded(Image.fromarray(car_pixels(2, 2)).convert("CMYK"), "JPEG"),
    "grey": encoded(Image.fromarray(car_pixels(2, 3)).convert("L"), "JPEG"),
    "progressive": jpeg(car_pixels(2, 4), progressive=True),
    "rgb": jpeg(car_pixels(2, 5), keep_rgb=True),
    "turned": turned(6),
    "trailing": jpeg(car_pixels(2, 6)) + b"maker's notes",
}


@pytest.mark.parametrize("fit", ["centre", "stretch"])
@pytest.mark.parametrize("size", [(200, 150), (150, 200), (97, 64), (72, 72), (64, 64)])
def test_a_crop_is_the_cpu_s_but_for_rounding(fit: Literal["centre", "stretch"], size: tuple[int, int]) -> None:
    spec = dataclasses.replace(SPEC, fit=fit)
    photo = car_photo(3, 1, size)
    crop, wanted = NvjpegPreparation(spec, CPU).prepare(photo), prepare(photo, spec)
    assert crop.shape == (64, 64, 3)
    assert crop.dtype == np.uint8
    assert np.abs(crop.astype(int) - wanted).mean() < 1


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_plain_jpegs_go_to_the_device(subsampling: int) -> None:
    staged = NvjpegPreparation(SPEC, CPU).stage(jpeg(car_pixels(0, 0, (200, 150)), subsampling=subsampling))
    assert isinstance(staged, Encoded)
    assert (staged.height, staged.width) == (150, 200)
    assert isinstance(NvjpegPreparation(SPEC, CPU).stage(turned(1)), Encoded)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_photos_are_decoded_by_the_cpu_and_resized_alike(kind: str) -> None:
    preparation = NvjpegPreparation(SPEC, CPU)
    assert isinstance(preparation.stage(OTHERS[kind]), Tensor)
    crop = preparation.prepare(OTHERS[kind])
    assert np.abs(crop.astype(int) - prepare(OTHERS[kind], SPEC)).mean() < 1


def test_a_photo_has_the_same_crop_in_every_batch() -> None:
    preparation = NvjpegPreparation(SPEC, CPU)
    photos = [PLAIN, *OTHERS.values(), car_photo(5, 5, (90, 120))]
    together, rejected = preparation.crops([preparation.stage(photo) for photo in photos])
    assert rejected == {}
    assert np.array_equal(together.numpy(), np.stack([preparation.prepare(photo) for photo in photos]))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"no photo", "unsupported_image_format"),
        (PLAIN[: len(PLAIN) // 2], "image_undecodable"),
        (car_photo(0, 0, (500, 17)), "image_degenerate"),
    ],
)
def test_limits_and_errors_are_those_of_the_cpu(data: bytes, code: str) -> None:
    with pytest.raises(ImageRejected) as caught:
        NvjpegPreparation(SPEC, CPU).prepare(data)
    assert caught.value.code == code


def damaged_for_the_device(photos: list[Tensor], device: torch.device) -> list[Tensor]:
    """A device that refuses the whole list when a photo ends in 16 zeros before its end marker."""
    if any(not photo[-18:-2].any() for photo in photos):
        raise RuntimeError("nvjpegDecodeBatched failed")
    return nvjpeg(photos, device)


def test_memory_that_the_device_may_still_read_is_waited_for_before_nvjpeg_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []
    gpu: Any = SimpleNamespace(type="cuda")
    stream = SimpleNamespace(synchronize=lambda: steps.append("wait"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream if device is gpu else None)
    monkeypatch.setattr(torch.ops.image, "decode_jpegs_cuda", lambda _, mode, __: steps.append(f"decode {mode}"))
    nvjpeg([torch.zeros(1, dtype=torch.uint8)], gpu)
    assert steps == ["wait", "decode 3"]  # 3 is RGB


def test_a_photo_that_fails_on_the_device_costs_no_other_its_place() -> None:
    """The CPU's decoder has the last word on it: one is repaired as always, the other is refused."""
    preparation = NvjpegPreparation(SPEC, CPU, damaged_for_the_device)
    odd = PLAIN[:-18] + bytes(16) + b"\xff\xd9"
    staged = [preparation.stage(photo) for photo in (PLAIN, odd, car_photo(1))]
    crops, rejected = preparation.crops(staged)
    assert rejected == {}
    assert np.array_equal(crops[0].numpy(), preparation.prepare(PLAIN))
    assert np.abs(crops[1].numpy().astype(int) - prepare(odd, SPEC)).mean() < 1
    assert np.array_equal(crops[2].numpy(), preparation.prepare(car_photo(1)))


def test_a_photo_that_nobody_can_decode_is_rejected_with_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_data: bytes, _side: int | None) -> None:
        raise ImageUndecodable("The photo is damaged or cut off and cannot be decoded.")

    preparation = NvjpegPreparation(SPEC, CPU, damaged_for_the_device)
    staged = [preparation.stage(photo) for photo in (PLAIN, PLAIN[:-18] + bytes(16) + b"\xff\xd9")]
    monkeypatch.setattr(model.images.nvjpeg, "decode", refuse)
    _, rejected = preparation.crops(staged)
    assert {row: problem.code for row, problem in rejected.items()} == {1: "image_undecodable"}


def test_a_jpeg_of_more_pixels_than_are_decoded_is_left_to_the_cpu_which_reduces_it() -> None:
    preparation, photo = NvjpegPreparation(SPEC, CPU), flat_jpeg(9000, 6000)
    assert not isinstance(preparation.stage(photo), Encoded)
    assert np.unique(preparation.prepare(photo)).tolist() == [128]


def test_large_photos_are_decoded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counting(photos: list[Tensor], device: torch.device) -> list[Tensor]:
        sizes.append(len(photos))
        return nvjpeg(photos, device)

    monkeypatch.setattr(model.images.nvjpeg, "MAX_PIXELS_PER_CALL", 2 * 200 * 150)
    preparation = NvjpegPreparation(SPEC, CPU, counting)
    preparation.crops([preparation.stage(PLAIN)] * 5)
    assert sizes == [2, 2, 1]


def test_nvjpeg_is_a_space_of_its_own_and_refused_without_cuda(real_model: Path) -> None:
    card = load_card(real_model)
    torch_embedder = Embedder.load(real_model, "torch")
    on_device = Embedder(real_model, card, torch_embedder.runtime, NvjpegPreparation(card.input, CPU))
    assert on_device.embedding_id == card.embedding_id("fp32", NVJPEG) != torch_embedder.embedding_id
    assert card.space_of(on_device.embedding_id) == ("fp32", NVJPEG)
    assert not card.interchangeable(on_device.embedding_id, torch_embedder.embedding_id)
    on_device.check_golden()
    for runtime, where in (("torch", "torch on a CPU"), ("openvino", "openvino")):
        with pytest.raises(
            ModelMismatch, match=f"needs the runtime torch on CUDA, and this is {where}; .*--decoder cpu"
        ):
            Embedder.load_like(real_model, on_device.embedding_id, runtime)
    with pytest.raises(SettingsInvalid, match='no decoder "dali"; there are: cpu, nvjpeg'):
        Embedder.load(real_model, "torch", decoder="dali")


def test_files_are_embedded_from_the_device_s_pixels(real_model: Path, tmp_path: Path) -> None:
    card = load_card(real_model)
    runtime = Embedder.load(real_model, "torch").runtime
    embedder = Embedder(real_model, card, runtime, NvjpegPreparation(card.input, CPU))
    photos = [PLAIN, OTHERS["png"], OTHERS["turned"]]
    for number, photo in enumerate(photos):
        (tmp_path / str(number)).write_bytes(photo)
    rows = embedder.embed_files([tmp_path / str(number) for number in range(3)])
    assert np.abs(rows - np.stack([embedder.embed_photo(photo) for photo in photos])).max() < 1e-5
