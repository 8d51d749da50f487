"""Photo bytes to RGB pixels: the only decoder, for training, indexing and serving.

Rules, so that a photo means the same wherever it enters:
  - JPEG, PNG, WebP, AVIF and HEIC are recognised by content, whatever the name or declared type; only the first frame
    counts;
  - EXIF orientation 1..8 is applied (XMP's where EXIF has none); a broken one counts as 1; other metadata and colour
    profiles are ignored. AVIF and HEIC have rotation and mirroring of their own, and their EXIF says nothing;
  - transparency is composited on white; 16-bit values keep their high byte; CMYK and grey become RGB;
  - a photo with a side below 16 pixels, or one side more than 20 times the other, is refused: ImageDegenerate.

A JPEG that is much larger than what it will be resized to is decoded at a half, a quarter or an eighth of its size.
libjpeg does that while it undoes the cosine transform: an antialiased reduction that saves time. It saves memory too,
so such a JPEG may have more pixels; of a progressive one libjpeg holds all coefficients. A JPEG of one scan that lacks
its end marker and nothing else is taken, as browsers do.

Plain JPEGs go to libjpeg-turbo through simplejpeg. Pillow uses the same decoder and gives the same bits, but spends
most of its time on copying them. Unusual files go to Pillow; without simplejpeg all JPEGs do. HEIC goes to libheif
through pillow-heif, which is an extra.
"""

import io
import math

import numpy as np
from PIL import AvifImagePlugin, Image, JpegImagePlugin

from model.errors import (
    EmptyFile,
    ImageDegenerate,
    ImageRejected,
    ImageTooManyPixels,
    ImageUndecodable,
    UnsupportedImageFormat,
)
from model.images.foreign import foreign_kind
from model.images.header import ImageHeader, has_metadata, is_decoded_by_rows, read_header
from model.images.heif import is_heic, only_still
from model.types import Pixels

try:
    import simplejpeg
except ModuleNotFoundError:  # not installed on a machine for training
    simplejpeg = None

try:
    import pillow_heif
except ImportError:  # an extra
    pillow_heif = None  # type: ignore[assignment]  # as above

# Photos are decoded side by side, one core each. There is no other way to tell either library.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
if pillow_heif is not None:
    pillow_heif.options.DECODE_THREADS = 1

MAX_PIXELS = 50_000_000
"""Pixels that are decoded at most."""
MAX_JPEG_PIXELS = 200_000_000
"""Pixels of a JPEG that is decoded row by row, and reduced to MAX_PIXELS or fewer."""
MAX_SIDE = 16_384
MIN_SIDE = 16
MAX_ASPECT = 20
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF")
"""Pillow's; libheif has its own."""
READ = "JPEG, PNG, WebP, AVIF or HEIC"
WITHOUT_HEIF = "The file is a HEIC photo; install carsearch[heif] to read such photos."

PLAIN_COLOURS = ("YCbCr", "Gray")
INKS = ("CMYK", "YCCK")

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

END_OF_IMAGE, START_OF_SCAN = b"\xff\xd9", b"\xff\xda"
REDUCTIONS = (8, 4, 2)
MIN_OVERSAMPLING = 2
"""A reduced JPEG stays at least this many times as large as what it is resized to."""


def decode(data: bytes, side: int | None = None) -> Pixels:
    """Decodes a photo to RGB, upright: uint8 (H, W, 3).

    `side` is the length in pixels that its shorter side will be resized to; a much larger JPEG is then decoded reduced.
    Raises one of the kinds of ImageRejected, whatever the bytes are; never anything else.
    """
    header = check_header(data, side)
    reduction = _reduction(header, side)
    if header.format == "JPEG" and simplejpeg is not None:
        pixels = _decode_plain_jpeg(data, header, reduction)
        if pixels is not None:
            return pixels
    try:
        return _decode_heic(data, header) if header.format == "HEIC" else _decode_with_pillow(data, header, reduction)
    except ImageRejected:
        raise
    except Exception as problem:
        # On broken files Pillow raises whatever its parsers run into (SyntaxError, struct.error, TypeError,
        # OverflowError, MemoryError ...); its maintainers do not treat that as a bug.
        pixels = _decode_jpeg_without_end(data, header, reduction) if header.format == "JPEG" else None
        if pixels is not None:
            return pixels
        raise ImageUndecodable("The photo is damaged or cut off and cannot be decoded.") from problem


def check_header(data: bytes, side: int | None = None) -> ImageHeader:
    """Format and size of a photo that may be decoded; raises ImageRejected for others, before anything is decoded.

    `side` is as in `decode`; without it a JPEG may have no more pixels than other photos.
    """
    if not data:
        raise EmptyFile("The file is empty.")
    if is_heic(data) and pillow_heif is None:
        raise UnsupportedImageFormat(WITHOUT_HEIF)
    try:
        header = read_header(data)
    except ValueError as problem:
        raise ImageUndecodable(f"The photo cannot be decoded: {problem}.") from problem
    if header is None:
        kind = foreign_kind(data)
        raise UnsupportedImageFormat(f"The file is {kind + ', not' if kind else 'not'} a {READ} photo.")
    if header.format == "HEIC" and pillow_heif is None:
        raise UnsupportedImageFormat(WITHOUT_HEIF)
    check_size(header.width, header.height, _most_pixels(data, header, side))
    return header


def side_within(header: ImageHeader, longest: int) -> int:
    """The shorter side, in pixels, of a photo whose longer one is resized to `longest`."""
    return max(1, round(longest * min(header.width, header.height) / max(header.width, header.height)))


def _most_pixels(data: bytes, header: ImageHeader, side: int | None) -> int:
    """How many pixels a photo may have: more than MAX_PIXELS where not so many are decoded or held."""
    if header.format != "JPEG" or header.width * header.height <= MAX_PIXELS:
        return MAX_PIXELS
    reduction = _reduction(header, side)
    decoded = math.ceil(header.width / reduction) * math.ceil(header.height / reduction)
    return MAX_JPEG_PIXELS if decoded <= MAX_PIXELS and is_decoded_by_rows(data) else MAX_PIXELS


def check_size(width: int, height: int, most_pixels: int = MAX_PIXELS) -> None:
    """Raises ImageTooManyPixels or ImageDegenerate for a photo that is too large or has no shape of a car's photo."""
    if width > MAX_SIDE or height > MAX_SIDE or width * height > most_pixels:
        raise ImageTooManyPixels(
            f"The photo has {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million are taken, "
            f"{MAX_JPEG_PIXELS // 1_000_000} million of a JPEG that is not progressive, and {MAX_SIDE} a side."
        )
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageDegenerate(
            f"The photo has {width} x {height} pixels; it needs at least {MIN_SIDE} a side, "
            f"and no side more than {MAX_ASPECT} times the other."
        )


def _reduction(header: ImageHeader, side: int | None) -> int:
    """The largest reduction that keeps a JPEG `MIN_OVERSAMPLING` times as large as its resized shorter side."""
    if side is None or header.format != "JPEG":
        return 1
    oversampling = min(header.width, header.height) / side
    return next((reduction for reduction in REDUCTIONS if oversampling >= MIN_OVERSAMPLING * reduction), 1)


def _decode_plain_jpeg(data: bytes, header: ImageHeader, reduction: int) -> Pixels | None:
    """Decodes a JPEG with simplejpeg; None unless it does so without a warning: Pillow then decides."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != (header.width, header.height) or colours not in PLAIN_COLOURS:
            return None
        orientation = orientation_of(data, header)
        reduced = (math.ceil(height / reduction), math.ceil(width / reduction))
        pixels: Pixels = simplejpeg.decode_jpeg(data, min_height=reduced[0], min_width=reduced[1], min_factor=reduction)
        if pixels.shape[:2] != reduced:
            return None
    except Exception:
        return None
    if orientation in TRANSPOSE:
        return np.asarray(Image.fromarray(pixels).transpose(TRANSPOSE[orientation]))
    return pixels


def _decode_jpeg_without_end(data: bytes, header: ImageHeader, reduction: int) -> Pixels | None:
    """Decodes a JPEG of one scan that lacks its end marker alone; None where more is missing.

    Of a JPEG of several scans libjpeg does not tell that the last ones are missing.
    Given that marker, libjpeg warns when it meets it early. simplejpeg makes an error of that and Pillow does not, so
    of colours that Pillow has to decode simplejpeg is asked about the file, and its pixels are thrown away.
    """
    has_end = data.rfind(END_OF_IMAGE) > data.rfind(START_OF_SCAN)
    if simplejpeg is None or has_end or not is_decoded_by_rows(data):
        return None
    try:
        whole = data + END_OF_IMAGE
        pixels = _decode_plain_jpeg(whole, header, reduction)
        if pixels is None:
            colours = simplejpeg.decode_jpeg_header(whole)[2]
            model = "CMYK" if colours in INKS else "RGB"
            simplejpeg.decode_jpeg(whole, model, min_height=1, min_width=1, min_factor=REDUCTIONS[0])
            pixels = _decode_with_pillow(whole, header, reduction)
    except Exception:
        return None  # as in `decode`
    return pixels


def _open(data: bytes, header: ImageHeader) -> Image.Image:
    """Opens a photo with Pillow, but for its own limit of pixels, which is below ours for JPEGs that are reduced."""
    if header.width * header.height > MAX_PIXELS:
        return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS)


def _decode_with_pillow(data: bytes, header: ImageHeader, reduction: int) -> Pixels:
    with _open(only_still(data, "AVIF") if header.format == "AVIF" else data, header) as image:
        if image.size != (header.width, header.height):  # a second header, behind the one that was checked
            raise ValueError("the photo declares two sizes")
        if reduction > 1:
            image.draft(None, (header.width // reduction, header.height // reduction))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("the photo cannot be reduced")
        image.load()
        return _turned(image, header.orientation) if header.format == "AVIF" else upright_rgb(image)


def _decode_heic(data: bytes, header: ImageHeader) -> Pixels:
    """Decodes with libheif, which rotates and mirrors, and cuts away what its codec added to the sides."""
    image = pillow_heif.open_heif(only_still(data, "HEIC"))
    width, height = image.size
    upright = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    if width > upright[0] or height > upright[1]:
        raise ValueError("the photo declares two sizes")
    check_size(width, height)
    pixels: Pixels = np.asarray(image if image.mode == "RGB" else _to_rgb(image.to_pillow()))
    if pixels.shape[:2] != (height, width):
        raise ValueError("the photo declares two sizes")
    return pixels


def upright_rgb(image: Image.Image) -> Pixels:
    """RGB pixels of a loaded image, upright by its EXIF orientation: uint8 (H, W, 3)."""
    return _turned(image, _orientation(image))


def _turned(image: Image.Image, orientation: int) -> Pixels:
    upright = image.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else image
    return np.asarray(_to_rgb(upright))


def orientation_of(data: bytes, header: ImageHeader) -> int:
    """The EXIF orientation of a JPEG whose header has been checked; raises whatever Pillow does on a broken one."""
    if not has_metadata(data):
        return 1
    with _open(data, header) as image:
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
