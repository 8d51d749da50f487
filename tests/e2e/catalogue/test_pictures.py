"""Cases 001 to 042 of the catalogue: photos that are good but unusual, and files that are broken or hostile."""

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.catalogue import pictures as make
from tests.e2e.catalogue.pictures import BITS, GREY, PALETTE, PHOTO, PIXELS, Picture, exif, png
from tests.e2e.catalogue.standing import Standing
from tests.support.photos import encoded, flat_jpeg, heic, jpeg
from tests.support.ways import upload_by

IMPOSSIBLE = {"0": exif(0), "9": exif(9), "65535": exif(65535), "text": exif(b"six\0", 2, 4)}
BROKEN_EXIF = {
    "empty": b"Exif\0\0",
    "twice": b"Exif\0\0" + exif(1),
    "64 KB of junk": b"Exif\0\0" + b"junk" * 16_000,
    "-1/0": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x0a\0\x01\0\0\0\x1a\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0",
    "a directory that is its own next": b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0",
}
PLAIN = png(PHOTO)
TWO_FRAMES = [Image.new("RGB", PHOTO.size, "red")]
SECRET = "tell-nobody-4711"  # noqa: S105  # it stands in what is sent and must not stand in what comes back


def good() -> Iterator[Picture]:
    yield Picture("001", "progressive JPEG", lambda: jpeg(PIXELS, quality=95, progressive=True), twin="plain")
    cmyk = PHOTO.convert("CMYK")
    yield Picture("002", "CMYK", lambda: encoded(cmyk, "JPEG", quality=95, progressive=True), "ok", "plain", 0.98)
    yield Picture("003", "YCCK", make.ycck, "ok", "plain", 0.98)
    yield Picture("003", "CMYK without Adobe's marker", make.without_adobe, "ok", "plain", 0.98)
    yield Picture("004", "grey JPEG", lambda: encoded(GREY, "JPEG", quality=95), twin="grey")
    yield Picture("004", "LA PNG", lambda: png(GREY.convert("LA")), twin="grey")
    yield Picture("004", "1-bit PNG", lambda: png(BITS), twin="bits")
    sixteen = np.asarray(GREY).astype(np.uint16) * 257
    yield Picture("005", "16-bit grey PNG", lambda: png(Image.fromarray(sixteen)), "ok", "grey", 0.99)
    yield Picture("006", "16-bit RGB PNG", lambda: make.sixteen_bits(False), "ok", "plain", 0.99)
    yield Picture("006", "16-bit RGBA PNG", lambda: make.sixteen_bits(True), "ok", "plain", 0.99)
    yield Picture("007", "palette with a transparent entry", lambda: png(PALETTE, transparency=0), twin="palette")
    for seed in (1, 2):
        yield Picture("008", f"noise {seed} under alpha 0", partial(make.hidden_noise, seed), twin="hole")
    for side in ((1, 1), (1, 10_000), (10_000, 1)):
        image = Image.new("RGB", side)
        number = "009" if side == (1, 1) else "010"
        yield Picture(number, "{} x {}".format(*side), partial(png, image), "image_degenerate")
        yield Picture(number, "{} x {} JPEG".format(*side), partial(encoded, image, "JPEG"), "image_degenerate")
    for time in ("first", "again"):
        yield Picture("011", f"as many pixels as may be, {time}", lambda: make.one_colour(7071, 7071))
    yield Picture("012", "more pixels than may be", lambda: make.one_colour(7072, 7072), "image_too_many_pixels")
    for frames in (2, 1000):
        animation = partial(make.animated, "GIF", frames)
        yield Picture("013", f"GIF of {frames} frames", animation, "unsupported_image_format")
    for frames in (2, 100):
        yield Picture("014", f"WebP of {frames} frames", partial(make.animated, "WEBP", frames), twin="plain")
    yield Picture("015", "APNG", partial(make.animated, "PNG", 3), twin="plain")
    for orientation in make.STORED_AS:
        yield Picture("016", f"orientation {orientation}", partial(make.oriented, orientation), twin="plain")
    for what, block in IMPOSSIBLE.items():
        yield Picture("017", f"orientation {what}", partial(png, PHOTO, exif=block[6:]), twin="plain")
    for what, block in BROKEN_EXIF.items():
        yield Picture("018", f"EXIF: {what}", partial(jpeg, PIXELS, quality=95, exif=block), twin="plain")
    turned = np.asarray(PHOTO.transpose(Image.Transpose.ROTATE_90))
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    in_xmp = partial(jpeg, turned, quality=95, xmp=xmp)  # whitening makes more of what JPEG loses
    yield Picture("019", "orientation in XMP alone", in_xmp, twin="plain", least=0.995)
    for what, profile in (("broken", b"broken"), ("of 1 MB", bytes(1_000_000))):
        yield Picture("020", f"colour profile {what}", partial(png, PHOTO, icc_profile=profile), twin="plain")
    two = {"save_all": True, "append_images": TWO_FRAMES, "quality": 95}
    yield Picture("021", "MPO", lambda: encoded(PHOTO, "MPO", **two), twin="plain")
    film = b"\0\0\0\x18ftypmp42" * 420_000
    yield Picture("022", "5 MB of film behind it", lambda: jpeg(PIXELS, quality=95) + film, twin="plain")
    yield Picture("023", "10,000 comments", lambda: make.with_segments(10_000), twin="plain")
    yield Picture("023", "100,000 texts", lambda: make.with_text_chunks(100_000), twin="plain")
    for what, make_heic in (("HEIC", heic), ("HEIC of tiles", partial(heic, tile_size=64))):
        yield Picture("037", what, partial(make_heic, PHOTO, quality=95), "ok", "plain", 0.99)
    yield Picture("037", "HEIC on its side", partial(heic, Image.fromarray(turned), exif=exif(6)), "ok", "plain", 0.98)
    yield Picture("037", "AVIF", partial(encoded, PHOTO, "AVIF", quality=95), "ok", "plain", 0.99)
    yield Picture("026", "JPEG without its end marker", lambda: jpeg(PIXELS, quality=95)[:-2], twin="plain")
    yield Picture("012", "108 megapixels that are reduced", lambda: flat_jpeg(12_000, 9000))
    for colour in ("black", "white"):
        yield Picture("024", colour, partial(png, Image.new("RGB", (256, 192), colour)))


def broken() -> Iterator[Picture]:
    plain = jpeg(PIXELS)
    yield Picture("026", "JPEG cut at 0 %", lambda: b"", "empty_file")
    for what, data in make.cuts(plain):
        yield Picture("026", f"JPEG cut at {what}", partial(bytes, data), "image_undecodable")
    for at in make.jpeg_markers(plain):
        yield Picture("026", f"JPEG cut at byte {at}", partial(bytes, plain[: max(at, 3)]), "image_undecodable")
    for what, data in make.cuts(png(PHOTO)):
        if what != "1 %":
            yield Picture("027", f"PNG cut at {what}", partial(bytes, data), "image_undecodable")
    for what in ("stream", "pixel"):
        yield Picture("027", f"PNG with a broken {what}", partial(make.broken_png, what), "image_undecodable")
    yield Picture("027", "PNG with a wrong checksum alone", partial(make.broken_png, "checksum"), twin="plain")
    yield Picture("027", "PNG without its end", partial(make.broken_png, "end"), twin="plain")
    for what, data in make.cuts(encoded(PHOTO, "WEBP")):
        yield Picture("028", f"WebP cut at {what}", partial(bytes, data), "image_undecodable")
    yield Picture("028", "WebP whose size lies", make.lying_riff, "image_undecodable")
    for what, whole in (("AVIF", encoded(PHOTO, "AVIF")), ("HEIC", heic(PHOTO))):
        for how, data in make.cuts(whole):
            if how != "1 %":
                yield Picture("037", f"{what} cut at {how}", partial(bytes, data), "image_undecodable")
        lie = whole.replace(struct.pack(">II", *PHOTO.size), struct.pack(">II", 64, 64))
        yield Picture("037", f"{what} that declares too small a size", partial(bytes, lie), "image_undecodable")
    progressive = flat_jpeg(12_000, 9000).replace(b"\xff\xc0", b"\xff\xc2")
    yield Picture("012", "108 megapixels, progressive", lambda: progressive, "image_too_many_pixels")
    many = "image_too_many_pixels"
    yield Picture("029", "50,000 x 50,000 PNG", lambda: make.png_of(50_000, 50_000, 8, 2), many)
    yield Picture("030", "65,535 x 65,535 JPEG", lambda: make.jpeg_header(65_535, 65_535), many)
    yield Picture("030", "16,383 x 16,383 WebP", lambda: make.webp_header(16_383, 16_383), many)
    yield Picture("030", "2^31 - 1 a side", lambda: make.png_of(2**31 - 1, 2**31 - 1, 8, 2), many)
    yield Picture("031", "40,000 x 40,000 of one colour", lambda: make.one_colour(40_000, 40_000), many)
    profile = partial(make.inflating, b"iCCP", b"icc\0\0")
    yield Picture("032", "a profile that unpacks to 1 GB", profile, "image_undecodable")
    text = partial(make.inflating, b"zTXt", b"Comment\0\0")
    yield Picture("032", "a text that unpacks to 1 GB", text, "image_undecodable")
    huge_frame = b"GIF89a\x01\0\x01\0\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;"
    yield Picture("033", "a GIF with a frame beyond its screen", lambda: huge_frame, "unsupported_image_format")
    yield Picture("035", "nothing", lambda: b"", "empty_file")
    numbers = {"SVG": "036", "SVGZ": "036", "JXL": "037"}
    numbers |= {"text": "034", "zeros": "034", "random": "034"}
    for what, data in make.foreign().items():
        yield Picture(numbers.get(what, "038"), what, partial(bytes, data), "unsupported_image_format")
    for what, data in (("PNG + PHP", png(PHOTO) + b"<?php"), ("JPEG + HTML", jpeg(PIXELS, quality=95) + b"<script>")):
        yield Picture("040", what, partial(bytes, data), twin="plain")
    yield Picture("040", "JPEG + zip", lambda: jpeg(PIXELS, quality=95) + _zip(), twin="plain")
    yield Picture("040", "GIF + JS", lambda: b"GIF89a/*" + b"*/=1;alert(1)", "unsupported_image_format")


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.html", "<script>alert(1)</script>")
    return buffer.getvalue()


def _id(picture: Picture) -> str:
    return f"{picture.number} {picture.what}"


@pytest.mark.parametrize("picture", [*good(), *broken()], ids=_id)
def test_a_picture_is_found_or_refused_as_the_catalogue_says(standing: Standing, picture: Picture) -> None:
    data = picture.make()
    raw, base64 = (upload_by(way, data) for way in ("raw", "base64"))
    batch = upload_by("batch", data, PLAIN)
    with standing.case(picture.code) as send:
        form = send(params={"k": 1}, files={"file": (SECRET, data)})
        assert SECRET not in form.text
        alone = [form, *(send(one.path, params={"k": 1}, **one.arguments) for one in (raw, base64))]
        together = send(batch.path, code="ok", params={"k": 1}, **batch.arguments)
    good, entry = parsed(together)["results"]
    assert good["result"]["nearest"]["class"] == "plain"
    if picture.code != "ok":
        assert [one.json() for one in alone[1:]] == [form.json()] * 2
        assert entry["problem"] == form.json()
        return
    found = [answer["nearest"] for answer in (*map(parsed, alone), entry["result"])]
    assert {hit["id"] for hit in found} == {found[0]["id"]}
    for hit in found:
        assert -1.001 <= hit["score"] <= 1
        assert abs(hit["score"] - found[0]["score"]) <= 1e-5  # a batch may be embedded with its other photo
        if picture.twin:
            assert (hit["class"], hit["score"] >= picture.least) == (picture.twin, True), found


def parsed(response: httpx.Response) -> Any:
    return json.loads(response.text, parse_constant=lambda word: pytest.fail(f"{word} is no score"))


NAMES = ["아반떼.jpg", "a b.jpg", "x" * 4000, "\u202egpj.exe", "a\\0b", "../../etc/passwd", "", "a%00b"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"025 {name[:12]!r}")
def test_a_file_name_is_used_for_nothing(standing: Standing, name: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % name.encode()
    body += png(PHOTO) + b"\r\n--b--\r\n"
    with standing.case("ok") as send:
        send(content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    if len(name) > 3:
        assert name not in standing.server.log


@pytest.mark.parametrize("plain", [b'filename="a.jpg"; ', b""], ids=["025 filename*=", "025 alone"])
def test_a_name_in_the_extended_notation_is_used_for_nothing(standing: Standing, plain: bytes) -> None:
    body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; %sfilename*=UTF-8''%%ec.jpg\r\n\r\n" % plain
    body += png(PHOTO) + b"\r\n--b--\r\n"
    with standing.case("ok") as send:  # RFC 7578, 4.2, forbids it, and clients send it
        send(content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})


@pytest.mark.parametrize(
    ("number", "name", "declared", "kind", "code"),
    [
        ("039", "car.jpg", "image/jpeg", "EPS", "unsupported_image_format"),
        ("041", "car.jpg", "text/plain", "JPEG", "ok"),
        ("041", "car", "application/octet-stream", "JPEG", "ok"),
        ("042", "car.jpg", "image/jpeg", "PNG", "ok"),
    ],
)
def test_what_a_file_says_of_itself_counts_and_not_what_is_declared(
    standing: Standing, number: str, name: str, declared: str, kind: str, code: str
) -> None:
    with standing.case(code) as send:
        send(files={"file": (name, encoded(PHOTO, kind), declared)})
    assert number
