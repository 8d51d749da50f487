"""Photo bytes to RGB pixels: the only decoder, for training, indexing and serving.

Rules, so that a photo means the same wherever it enters:
  - JPEG, PNG and WebP are recognised by content, whatever the name or declared type; only the first frame counts;
  - EXIF orientation 1..8 is applied (XMP's where EXIF has none); a broken one counts as 1; other metadata and colour
    profiles are ignored;
  - transparency is composited on white; 16-bit values keep their high byte; CMYK and grey become RGB;
  - a photo with a side below 16 pixels, or one side more than 20 times the other, is refused: ImageDegenerate.

A JPEG that is much larger than what it will be resized to is decoded at a half, a quarter or an eighth of its size.
libjpeg does that while it undoes the cosine transform: an antialiased reduction that saves time.

Plain JPEGs go to libjpeg-turbo through simplejpeg. Pillow uses the same decoder and gives the same bits, but spends
most of its time on copying them. Unusual files go to Pillow; without simplejpeg all files do.
"""

import io
import math

import numpy as np
from PIL import Image

from model.errors import EmptyFile, ImageDegenerate, ImageTooManyPixels, ImageUndecodable, UnsupportedImageFormat
from model.images.header import ImageHeader, read_header
from model.types import Pixels

try:
    import simplejpeg
except ModuleNotFoundError:  # not installed on a machine for training
    simplejpeg = None

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
MIN_OVERSAMPLING = 2
"""A reduced JPEG stays at least this many times as large as what it is resized to."""


def decode(data: bytes, side: int | None = None) -> Pixels:
    """Decodes a photo to RGB, upright: uint8 (H, W, 3).

    `side` is the length in pixels that its shorter side will be resized to; a much larger JPEG is then decoded reduced.
    Raises one of the kinds of ImageRejected, whatever the bytes are; never anything else.
    """
    header = check_header(data)
    reduction = _reduction(header, side) if side is not None and header.format == "JPEG" else 1
    if header.format == "JPEG" and simplejpeg is not None:
        pixels = _decode_plain_jpeg(data, header, reduction)
        if pixels is not None:
            return pixels
    try:
        with Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS) as image:
            if image.size != (header.width, header.height):  # a second header, behind the one that was checked
                raise ValueError("the photo declares two sizes")
            if reduction > 1:
                image.draft(None, (header.width // reduction, header.height // reduction))
            image.load()
            return upright_rgb(image)
    except Exception as problem:
        # On broken files Pillow raises whatever its parsers run into (SyntaxError, struct.error, TypeError,
        # OverflowError, MemoryError ...); its maintainers do not treat that as a bug.
        raise ImageUndecodable("The photo is damaged or cut off and cannot be decoded.") from problem


def check_header(data: bytes) -> ImageHeader:
    """Format and size of a photo that may be decoded; raises ImageRejected for others, before anything is decoded."""
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


def _reduction(header: ImageHeader, side: int) -> int:
    """The largest reduction that keeps a JPEG `MIN_OVERSAMPLING` times as large as its resized shorter side."""
    oversampling = min(header.width, header.height) / side
    return next((reduction for reduction in REDUCTIONS if oversampling >= MIN_OVERSAMPLING * reduction), 1)


def _decode_plain_jpeg(data: bytes, header: ImageHeader, reduction: int) -> Pixels | None:
    """Decodes a JPEG with simplejpeg; None unless it does so without a warning: Pillow then decides."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != (header.width, header.height) or colours not in PLAIN_COLOURS:
            return None
        orientation = orientation_of(data)
        reduced = (math.ceil(height / reduction), math.ceil(width / reduction))
        pixels: Pixels = simplejpeg.decode_jpeg(data, min_height=reduced[0], min_width=reduced[1], min_factor=reduction)
        if pixels.shape[:2] != reduced:
            return None
    except Exception:
        return None
    if orientation in TRANSPOSE:
        return np.asarray(Image.fromarray(pixels).transpose(TRANSPOSE[orientation]))
    return pixels


def upright_rgb(image: Image.Image) -> Pixels:
    """RGB pixels of a loaded image, upright by its EXIF orientation: uint8 (H, W, 3)."""
    orientation = _orientation(image)
    upright = image.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else image
    return np.asarray(_to_rgb(upright))


def orientation_of(data: bytes) -> int:
    """The EXIF orientation of a JPEG whose header has been checked; raises whatever Pillow does on a broken one."""
    if not any(mark in data for mark in METADATA):
        return 1
    with Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:
        return 1  # Pillow raises many kinds of errors on broken EXIF, which says nothing about the pixels
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit_grey(image: Image.Image) -> Image.Image:
    # convert("RGB") clips 16-bit values at 255, which turns the picture white without an error.
    values = np.asarray(image).astype(np.int64)
    grey = (values >> 8).clip(0, 255).astype(np.uint8)
    key = image.info.get("transparency")  # the one value that is transparent, in all of its 16 bits
    return Image.fromarray(grey if key is None else np.where(values == key, np.uint8(255), grey)).convert("RGB")
