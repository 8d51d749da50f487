"""Decoding on the GPU: torchvision's nvJPEG, then resize and crop on the device. Its pixels differ from the CPU's.

The bytes of a photo decide who decodes it. nvJPEG takes plain three-channel baseline JPEGs that are whole and upright.
`model.images.decode.decode` takes all others; they are then resized by the same code on the device, so that a photo
always gives the same crop. Limits and errors are those of `model.images.decode`.
"""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.io  # registers the operators below
from PIL import Image, JpegImagePlugin
from torch import Tensor

from model.card import NVJPEG, InputSpec
from model.errors import ImageRejected
from model.images.decode import EXIF_ORIENTATION, MAX_PIXELS, check_header, decode
from model.images.header import ImageHeader
from model.images.transform import crop_corner, fitted_size, shorter_side
from model.types import Pixels

MAX_PIXELS_PER_CALL = 64_000_000
"""Pixels decoded in one call: 200 MB, and four times that while they are resized."""

END_OF_IMAGE = b"\xff\xd9"
COLOURS = (1, 2, 3)
SUBSAMPLING = {(1, 1), (2, 1), (2, 2)}
RGB = torchvision.io.ImageReadMode.RGB.value

_device_lock = threading.Lock()
"""One batch at a time in the whole process: see `nvjpeg`."""

Decode = Callable[[list[Tensor], torch.device], list[Tensor]]
"""Encoded JPEGs uint8 (n,) in memory -> uint8 (3, H, W) on the device; raises RuntimeError when one is damaged."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A JPEG that the device decodes: its bytes uint8 (n,), and its sides in pixels."""

    data: Tensor
    height: int
    width: int


def nvjpeg(encoded: list[Tensor], device: torch.device) -> list[Tensor]:
    """nvJPEG where the device is a GPU, libjpeg where it is a CPU; see `Decode`."""
    # torchvision's own functions warn on every call that they are deprecated, and warning filters are not thread-safe.
    if device.type != "cuda":
        return [torch.ops.image.decode_jpeg(one, RGB, False) for one in encoded]
    # torchvision allocates on the current stream and writes on another one without waiting (pytorch/vision pull request
    # 9606): whoever freed that memory must have finished reading it. Hence also the lock, and a separate stream for the
    # threads of the pool.
    torch.cuda.current_stream(device).synchronize()
    return cast(list[Tensor], torch.ops.image.decode_jpegs_cuda(encoded, RGB, device))


class NvjpegPreparation:
    """Photos to crops on a device. Tests run it on a CPU, where only the decoder's bits differ."""

    decoder: str | None = NVJPEG

    def __init__(self, spec: InputSpec, device: torch.device, decode_batch: Decode = nvjpeg) -> None:
        self._spec = spec
        self._device = device
        self._decode_batch = decode_batch
        self._pool_stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def prepare(self, data: bytes) -> Pixels:
        """Photo bytes -> uint8 (S, S, 3); raises ImageRejected."""
        crops, rejected = self.crops([self.stage(data)])
        for problem in rejected.values():
            raise problem
        return cast(Pixels, crops[0].cpu().numpy())

    def stage(self, data: bytes) -> Encoded | Tensor:
        """A supported JPEG as it is, any other photo as its crop uint8 (S, S, 3) in memory; raises ImageRejected."""
        side = shorter_side(self._spec)
        header = check_header(data, side)
        if header.width * header.height > MAX_PIXELS:  # the device would decode all of them
            return self._host_crop(data, side)
        if is_supported(data, header):
            return Encoded(torch.frombuffer(bytearray(data), dtype=torch.uint8), header.height, header.width)
        return self._host_crop(data)

    def crops(self, staged: Sequence[Encoded | Tensor]) -> tuple[Tensor, dict[int, ImageRejected]]:
        """Staged photos -> crops uint8 (B, S, S, 3) on the device, and the rows that could not be decoded."""
        side = self._spec.crop
        rejected: dict[int, ImageRejected] = {}
        encoded = [(row, one) for row, one in enumerate(staged) if isinstance(one, Encoded)]
        with _device_lock:
            crops = torch.empty((len(staged), side, side, 3), dtype=torch.uint8, device=self._device)
            for row, one in enumerate(staged):
                if isinstance(one, Tensor):
                    crops[row] = one
            for part in _chunks(encoded):
                for (row, one), image in zip(part, self._decode([one for _, one in part]), strict=True):
                    if image is not None:
                        crops[row] = fit_on_device(image, self._spec)
                        continue
                    try:
                        crops[row] = self._host_crop(one.data.numpy().tobytes())
                    except ImageRejected as problem:
                        rejected[row] = problem
        return crops, rejected

    def _decode(self, photos: list[Encoded]) -> list[Tensor | None]:
        """uint8 (3, H, W) for each photo, None where the device fails on it."""
        try:
            images = self._decode_batch([one.data for one in photos], self._device)
        except RuntimeError:  # one damaged photo fails the whole list
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # photos already started still write into memory that is now free
            return [None] if len(photos) == 1 else [self._decode([one])[0] for one in photos]
        fits = [image.shape[1:] == (one.height, one.width) for image, one in zip(images, photos, strict=True)]
        return [image if good else None for image, good in zip(images, fits, strict=True)]

    def _host_crop(self, data: bytes, side: int | None = None) -> Tensor:
        pixels = torch.from_numpy(np.array(decode(data, side)))
        with torch.cuda.stream(self._pool_stream) if self._pool_stream else nullcontext():
            return fit_on_device(pixels.to(self._device).permute(2, 0, 1), self._spec).cpu()


def is_supported(data: bytes, header: ImageHeader) -> bool:
    """Whether nvJPEG decodes a photo; unusual ones go to the CPU's decoder, whose rules say what they mean."""
    if header.format != "JPEG" or not data.endswith(END_OF_IMAGE):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:  # reads the headers only
            if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.format != "JPEG":
                return False
            identities, across, down, _ = zip(*image.layer, strict=True)
            plain = image.size == (header.width, header.height) and image.mode == "RGB"
            ordinary = "progressive" not in image.info and image.info.get("adobe_transform", 1) == 1
            layers = identities == COLOURS and (across[1:], down[1:]) == ((1, 1), (1, 1))
            upright = image.getexif().get(EXIF_ORIENTATION, 1) == 1
            return plain and ordinary and layers and (across[0], down[0]) in SUBSAMPLING and upright
    except Exception:
        return False  # Pillow raises many kinds of errors on broken headers; `decode` turns them into a sentence


def fit_on_device(image: Tensor, spec: InputSpec) -> Tensor:
    """`model.images.transform.fit` on a device: uint8 (3, H, W) -> uint8 (crop, crop, 3), antialiased bilinear."""
    height, width = image.shape[1:]
    resized_width, resized_height = fitted_size(width, height, spec)
    top, left = crop_corner(resized_width, resized_height, spec.crop)
    with torch.inference_mode():
        resized = image[None].float()
        if (width, height) != (resized_width, resized_height):
            size = (resized_height, resized_width)
            resized = F.interpolate(resized, size, mode="bilinear", align_corners=False, antialias=True)
        crop = resized[0, :, top : top + spec.crop, left : left + spec.crop]
        return crop.round().clamp(0, 255).byte().permute(1, 2, 0)


def _chunks(photos: Sequence[tuple[int, Encoded]]) -> Iterator[list[tuple[int, Encoded]]]:
    """Cuts a batch so that what is decoded in one call fits into memory."""
    chunk: list[tuple[int, Encoded]] = []
    pixels = 0
    for row, one in photos:
        size = one.height * one.width
        if chunk and pixels + size > MAX_PIXELS_PER_CALL:
            yield chunk
            chunk, pixels = [], 0
        chunk.append((row, one))
        pixels += size
    if chunk:
        yield chunk
