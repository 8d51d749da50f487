"""From photo bytes to the crop a network takes: the one implementation for training, indexing and serving.

Rules of `decode`, so that a photo means the same wherever it enters:
  - JPEG, PNG and WebP by content, whatever the name or declared type; of several frames, the first;
  - EXIF orientation 1..8 is applied (XMP's where EXIF has none), anything broken counts as 1; other metadata and
    colour profiles are ignored;
  - transparency is composited on white; 16-bit values keep their high byte; CMYK and grey become RGB;
  - sides below 16 pixels, or one side more than 20 times the other, are not photos of a car: ImageDegenerate.

`prepare` decodes a JPEG that is much larger than its crop at a half, a quarter or an eighth of its size, which libjpeg
does while it undoes the cosine transform: an antialiased reduction that saves time. Resizing is an antialiased bilinear
filter in fixed point, with the same bits on every processor.

Plain JPEGs go to libjpeg-turbo directly, by way of simplejpeg: Pillow has the same decoder and the same bits, and
spends most of its time on moving them. Whatever is unusual about a file is left to Pillow, and so is everything where
simplejpeg is not installed.
"""

import io
import math
import threading

import cykooz_resizer as resizer
import numpy as np
import numpy.typing as npt
from PIL import Image

from model.card import InputSpec
from model.errors import (
    EmptyFile,
    ImageDegenerate,
    ImageTooManyPixels,
    ImageUndecodable,
    UnsupportedImageFormat,
)
from model.images.header import ImageHeader, read_header

try:
    import simplejpeg
except ModuleNotFoundError:  # a machine for training has what it has
    simplejpeg = None

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384
MIN_SIDE = 16
MAX_ASPECT = 20
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP")

PLAIN_COLOURS = ("YCbCr", "Gray")
METADATA = (b"Exif\0\0", b"http://ns.adobe.com/xap/")
"""A JPEG without these bytes says nothing about its orientation."""

EXIF_ORIENTATION = 0x0112
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


REDUCTIONS = (8, 4, 2)
SPARE = 2
"""A photo is decoded reduced while it stays at least this many times as large as what it is resized to."""

BILINEAR = resizer.ResizeOptions(resizer.ResizeAlg.convolution(resizer.FilterType.bilinear))
_of_thread = threading.local()


def decode(data: bytes, spec: InputSpec | None = None) -> Pixels:
    """Decodes a photo to RGB, upright: uint8 (H, W, 3); where it is larger than a `spec` needs, perhaps reduced.

    Raises one of the kinds of ImageRejected, whatever the bytes are; never anything else.
    """
    header = _check_header(data)
    reduction = _reduction(header, spec) if spec is not None and header.format == "JPEG" else 1
    if header.format == "JPEG" and simplejpeg is not None:
        plain = _decode_plain_jpeg(data, header, reduction)
        if plain is not None:
            return plain
    try:
        with Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS) as image:
            if image.size != (header.width, header.height):  # a second header, behind the one that was checked
                raise ValueError("the photo declares two sizes")
            if reduction > 1:
                image.draft(None, (header.width // reduction, header.height // reduction))
            image.load()
            return upright_rgb(image)
    except Exception as problem:
        # Broken files make Pillow raise whatever its parsers happen to hit (SyntaxError, struct.error, TypeError,
        # OverflowError, MemoryError ...), which its maintainers do not treat as bugs. All mean: no picture came out.
        raise ImageUndecodable("The photo is damaged or cut off and cannot be decoded.") from problem


def fit(pixels: Pixels, spec: InputSpec) -> Pixels:
    """What the network sees of a photo, by the spec's `fit`: uint8 (H, W, 3) -> uint8 (crop, crop, 3)."""
    if spec.fit == "stretch":
        return _resize(pixels, spec.crop, spec.crop)
    resized = resize_shorter_side(pixels, spec.resize)
    height, width = resized.shape[:2]
    # Rounds as torchvision's CenterCrop does, so that published recipes mean the same pixels here.
    top, left = round((height - spec.crop) / 2), round((width - spec.crop) / 2)
    return resized[top : top + spec.crop, left : left + spec.crop].copy()


def canvas(pixels: Pixels, spec: InputSpec) -> Pixels:
    """What training cuts its crops from: uint8 (H, W, 3) -> uint8 with `resize` as its shorter side, or as both."""
    if spec.fit == "stretch":
        return _resize(pixels, spec.resize, spec.resize)
    return resize_shorter_side(pixels, spec.resize)


def prepare(data: bytes, spec: InputSpec) -> Pixels:
    """`decode`, then `fit`: photo bytes -> uint8 (crop, crop, 3)."""
    return fit(decode(data, spec), spec)


def resize_shorter_side(pixels: Pixels, side: int) -> Pixels:
    """Antialiased bilinear resize that keeps the aspect ratio: uint8 (H, W, 3) -> uint8 with min(H, W) == side."""
    height, width = pixels.shape[:2]
    portrait = width <= height
    size = (side, int(side * height / width)) if portrait else (int(side * width / height), side)
    return _resize(pixels, *size)


def _resize(pixels: Pixels, width: int, height: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels.copy()
    if not hasattr(_of_thread, "resizer"):
        _of_thread.resizer = resizer.Resizer()  # it keeps a buffer, and is for one thread at a time
    source = resizer.ImageData(pixels.shape[1], pixels.shape[0], resizer.PixelType.U8x3, pixels.tobytes())
    resized = resizer.ImageData(width, height, resizer.PixelType.U8x3)
    _of_thread.resizer.resize(source, resized, BILINEAR)
    return np.frombuffer(bytearray(resized.rust_image.buffer()), np.uint8).reshape(height, width, 3)


def _reduction(header: ImageHeader, spec: InputSpec) -> int:
    """By how much a JPEG may be reduced while it is decoded, and still be `SPARE` times as large as needed."""
    if spec.fit == "stretch":
        spare = min(header.width, header.height) / spec.crop
    else:
        spare = min(header.width, header.height) / spec.resize
    return next((reduction for reduction in REDUCTIONS if spare >= SPARE * reduction), 1)


def _check_header(data: bytes) -> ImageHeader:
    if not data:
        raise EmptyFile("The file is empty.")
    try:
        header = read_header(data)
    except ValueError as problem:
        raise ImageUndecodable(f"The photo cannot be decoded: {problem}.") from problem
    if header is None:
        raise UnsupportedImageFormat("The file is not a JPEG, PNG or WebP photo.")
    check_size(header.width, header.height)
    return header


def check_size(width: int, height: int) -> None:
    """Raises ImageTooManyPixels or ImageDegenerate for a photo that is too large or has no shape of a car's photo."""
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageTooManyPixels(
            f"The photo has {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million are taken, "
            f"and {MAX_SIDE} a side."
        )
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageDegenerate(
            f"The photo has {width} x {height} pixels; it needs at least {MIN_SIDE} a side, "
            f"and no side more than {MAX_ASPECT} times the other."
        )


def _decode_plain_jpeg(data: bytes, header: ImageHeader, reduction: int = 1) -> Pixels | None:
    """A JPEG that simplejpeg decodes without so much as a warning; None for any other, which Pillow then judges."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != (header.width, header.height) or colours not in PLAIN_COLOURS:
            return None
        orientation = 1
        if any(mark in data for mark in METADATA):
            with Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS) as image:
                orientation = _orientation(image)
        reduced = (math.ceil(height / reduction), math.ceil(width / reduction))
        pixels: Pixels = simplejpeg.decode_jpeg(data, min_height=reduced[0], min_width=reduced[1], min_factor=reduction)
        if pixels.shape[:2] != reduced:
            return None
    except Exception:
        return None
    if orientation in TRANSPOSE:
        return np.asarray(Image.fromarray(pixels).transpose(TRANSPOSE[orientation]))
    return pixels


def check_header(data: bytes) -> ImageHeader:
    """Format and size of a photo that may be decoded; raises ImageRejected as `decode` does before it decodes."""
    return _check_header(data)


def upright_rgb(image: Image.Image) -> Pixels:
    """RGB pixels of a loaded image, upright by its EXIF orientation: uint8 (H, W, 3)."""
    orientation = _orientation(image)
    upright = image.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else image
    return np.asarray(_to_rgb(upright))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:
        return 1  # broken EXIF says nothing about the pixels, and Pillow raises anything on it
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit_grey(image: Image.Image) -> Image.Image:
    # convert("RGB") clips 16-bit values at 255, which turns the picture white without an error.
    values = np.asarray(image).astype(np.int64)
    grey = (values >> 8).clip(0, 255).astype(np.uint8)
    key = image.info.get("transparency")  # the one value that is transparent, in all of its 16 bits
    return Image.fromarray(grey if key is None else np.where(values == key, np.uint8(255), grey)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    canvas = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(canvas, rgba).convert("RGB")
