"""Requests that a client can get wrong, each with the code it must be answered with."""

import base64
import json
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

from PIL import Image

from tests.support.bodies import BOUNDARY, FORM, form, multipart, part, tar_of, zip_of
from tests.support.photos import car_photo, encoded

SECRET = "tell-nobody"  # noqa: S105  # it stands in what is sent and must not stand in what comes back


class BadRequest(NamedTuple):
    """A request (arguments for httpx) and the code of its answer."""

    what: str
    code: str
    method: str
    path: str
    arguments: dict[str, Any]


def header_bomb() -> bytes:
    """A PNG of a few bytes that declares 2.5 thousand million pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _gif() -> bytes:
    return encoded(Image.new("RGB", (64, 64)), "GIF")


def _strip() -> bytes:
    return encoded(Image.new("RGB", (1, 500)), "PNG")


def _search(what: str, code: str, content: bytes, headers: dict[str, str] = FORM, query: str = "") -> BadRequest:
    return BadRequest(what, code, "POST", f"/search{query}", {"content": content, "headers": headers})


def _batch(what: str, code: str, content: bytes, headers: dict[str, str] = FORM, query: str = "") -> BadRequest:
    return BadRequest(what, code, "POST", f"/search/batch{query}", {"content": content, "headers": headers})


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _archive(what: str, code: str, archive: bytes) -> BadRequest:
    return BadRequest(what, code, "POST", "/evaluate", {"content": form(archive, "archive"), "headers": FORM})


def _encrypted() -> bytes:
    plain = bytearray(zip_of({"a/1.jpg": car_photo()}))
    plain[plain.index(b"PK\x01\x02") + 8] |= 1
    return bytes(plain)


PHOTO = part(car_photo())
NOISE = SECRET.encode() + bytes(range(256))
JSON = {"Content-Type": "application/json"}

UPLOADS = [
    _search("no part at all", "missing_file", multipart()),
    _search("a file of another name", "missing_file", form(car_photo(), "photo")),
    _search("a parameter in the form", "unknown_parameter", multipart(PHOTO, part(NOISE, "k", None))),
    _search("a field that is none", "unknown_parameter", multipart(part(NOISE, "mode", None), PHOTO)),
    _search("two files", "multiple_files", multipart(PHOTO, PHOTO)),
    _search("more parts than a form can need", "malformed_multipart", multipart(*[part(b"1", "n")] * 17)),
    _search("an empty file", "empty_file", form(b"")),
    _search("text", "unsupported_image_format", form(NOISE)),
    _search("a GIF", "unsupported_image_format", form(_gif())),
    _search("an SVG", "unsupported_image_format", form(b"<svg xmlns='http://www.w3.org/2000/svg'/>")),
    _search("a JPEG cut in half", "image_undecodable", form(car_photo()[:1000])),
    _search("a JPEG of three bytes", "image_undecodable", form(b"\xff\xd8\xff")),
    _search("a header bomb", "image_too_many_pixels", form(header_bomb())),
    _search("a strip", "image_degenerate", form(_strip())),
    _search(
        "an urlencoded form", "unsupported_content_type", b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}
    ),
    _search("no content type", "unsupported_content_type", NOISE, {}),
    _search("a body in gzip", "unsupported_content_encoding", form(NOISE), {**FORM, "Content-Encoding": "gzip"}),
    _search(
        "a body in brotli", "unsupported_content_encoding", form(NOISE), {**FORM, "Content-Encoding": "identity, BR"}
    ),
    _search("no boundary", "malformed_multipart", form(NOISE), {"Content-Type": "multipart/form-data"}),
    _search(
        "a boundary of 10 KB", "malformed_multipart", NOISE, {"Content-Type": f"{FORM['Content-Type']}{'x' * 10_000}"}
    ),
    _search("a boundary that never closes", "malformed_multipart", multipart(PHOTO, closed=False)),
    _search("a body that is not the form it claims", "malformed_multipart", NOISE),
    _search(
        "a part without its blank line", "malformed_multipart", f"--{BOUNDARY}\r\n{SECRET}\r\n--{BOUNDARY}--".encode()
    ),
]

RAW = {"Content-Type": "image/jpeg"}

BODIES = [
    _search("an empty body", "empty_file", b"", RAW),
    _search("a body of text", "unsupported_image_format", NOISE, RAW),
    _search("a body cut in half", "image_undecodable", car_photo()[:1000], RAW),
    _search("a bomb as the body", "image_too_many_pixels", header_bomb(), {"Content-Type": "application/octet-stream"}),
    _search("a photo of the type of text", "unsupported_content_type", car_photo(), {"Content-Type": "text/plain"}),
    _search("no JSON", "malformed_json", NOISE, JSON),
    _search("JSON cut off", "malformed_json", _json(image="/9j/")[:-1], JSON),
    _search("JSON 100,000 deep", "malformed_json", b'{"image":' + b"[" * 100_000, JSON),
    _search("a number of 100,000 digits", "malformed_json", b'{"image":' + b"1" * 100_000 + b"}", JSON),
    _search("a list", "invalid_request", b"[]", JSON),
    _search("an empty object", "invalid_request", b"{}", JSON),
    _search("a photo and an id", "invalid_request", _json(image=_base64(car_photo()), id=SECRET), JSON),
    _search("base64 garbage", "invalid_request", _json(image=f"/9j/{SECRET}!"), JSON),
    _search("base64 in lines", "invalid_request", _json(image=_base64(car_photo())[:76] + "\n"), JSON),
    _search("base64 with signs of others", "invalid_request", _json(image="가나다라"), JSON),
    _search("base64 of nothing", "empty_file", _json(image=""), JSON),
    _search("base64 of text", "unsupported_image_format", _json(image=_base64(NOISE)), JSON),
    _search("base64 of half a JPEG", "image_undecodable", _json(image=_base64(car_photo()[:1000])), JSON),
    _search("an address to fetch", "invalid_request", _json(url=f"http://{SECRET}/a.jpg"), JSON),
    _search("a parameter in JSON", "unknown_parameter", _json(image=_base64(car_photo()), k=3), JSON),
    _search("an id that is not there", "unknown_item", _json(id=SECRET), JSON),
    _search("an id that is no text", "invalid_request", _json(id=5), JSON),
    _search("a box of an id", "invalid_request", _json(id=SECRET), JSON, "?box=0,0,64,64"),
]

QUERIES = [
    *(_search(f"box={box}", "invalid_box", form(car_photo()), query=f"?box={box}")
      for box in ("", "1,2,3", "1,2,3,4,5", "a,b,c,d", "0,0,1.5,40", "0,0,-64,64", "0,0,0,0", "0,0,15,40", "96,0,64,64",
                  "0,-64,64,64", "90,0,64,64", "0,0,9999999999,64", "%EF%BC%91,0,64,64")),
    *(_search(f"min_score={score}", "invalid_request", form(car_photo()), query=f"?min_score={score}")
      for score in ("2", "-1.1", "NaN", "inf", "x", "")),
    _search("an unknown group", "invalid_request", form(car_photo()), query=f"?group={SECRET}"),
    *(BadRequest(f"{path}?limit=1", "unknown_parameter", method, f"{path}?limit={SECRET}", {})
      for method, path in (("POST", "/search"), ("POST", "/search/batch"), ("POST", "/evaluate"),
                           ("GET", "/gallery/classes"), ("GET", "/gallery/a/image"), ("GET", "/evaluations/0"))),
    *(_search(f"k={k}", "invalid_k", form(car_photo()), query=f"?k={k}")
      for k in ("0", "-1", "1.5", "abc", "101", "1e9", "", "NaN", "9223372036854775808", "%00", "%ff")),
    _search("a class that is not there", "unknown_class", form(car_photo()), query="?class=spaceship"),
    _search("an empty class", "unknown_class", form(car_photo()), query="?class="),
    *(_search(f"the filter {where}", "invalid_filter", form(car_photo()), query=f"?where={where}")
      for where in ("", "price%3C5", f"{SECRET}%3D1", "%27", ")", "%00", "a" * 501, "not%20" * 120)),
    _search("101 classes", "invalid_request", form(car_photo()), query="?" + "&".join(["class=a"] * 101)),
]  # fmt: skip

ADDRESSES = [
    BadRequest("an unknown address", "not_found", "GET", f"/{SECRET}", {}),
    BadRequest("a trailing slash", "not_found", "GET", f"/{SECRET}/", {}),
    BadRequest("the wrong method", "method_not_allowed", "GET", "/search", {}),
    BadRequest("an unknown method", "method_not_allowed", "REPORT", "/livez", {}),
    BadRequest("a page of no photos", "invalid_request", "GET", "/gallery?limit=0", {}),
    BadRequest("a page too far", "invalid_request", "GET", "/gallery?after=9223372036854775808", {}),
    BadRequest("a filter of a gallery without metadata", "invalid_filter", "GET", "/gallery?where=price%3C5", {}),
    BadRequest("the list of an unknown class", "unknown_class", "GET", "/gallery?class=spaceship", {}),
    BadRequest("the image of an unknown photo", "unknown_item", "GET", f"/gallery/{SECRET}.jpg/image", {}),
    BadRequest("an id that climbs", "unknown_item", "GET", "/gallery/%2e%2e%2f%2e%2e%2fetc%2fpasswd/image", {}),
    BadRequest("an absolute id", "unknown_item", "GET", "/gallery/%2Fetc%2Fpasswd/image", {}),
    BadRequest("an id with a NUL", "unknown_item", "GET", "/gallery/a%00b/image", {}),
    BadRequest("an id that is not UTF-8", "unknown_item", "GET", "/gallery/%ff%fe/image", {}),
    BadRequest("an unknown evaluation", "unknown_evaluation", "GET", f"/evaluations/{'0' * 32}", {}),
    BadRequest("an evaluation id that climbs", "unknown_evaluation", "GET", "/evaluations/..%5c..%5cetc", {}),
    BadRequest("cancelling an unknown evaluation", "unknown_evaluation", "DELETE", f"/evaluations/{SECRET}", {}),
]

EVALUATIONS = [
    BadRequest("an unknown data set", "unknown_dataset", "POST", "/evaluate", {"json": {"dataset": "../.."}}),
    BadRequest("a data set that is no text", "invalid_request", "POST", "/evaluate", {"json": {"dataset": 5}}),
    BadRequest("a field too many", "invalid_request", "POST", "/evaluate", {"json": {"dataset": "demo", "x": 1}}),
    BadRequest("broken JSON", "malformed_json", "POST", "/evaluate", {"content": b'{"dataset"', "headers": JSON}),
    BadRequest("binary JSON", "malformed_json", "POST", "/evaluate", {"content": NOISE, "headers": JSON}),
    BadRequest(
        "JSON in gzip",
        "unsupported_content_encoding",
        "POST",
        "/evaluate",
        {"content": NOISE, "headers": {**JSON, "Content-Encoding": "gzip"}},
    ),
    BadRequest("plain text", "unsupported_content_type", "POST", "/evaluate", {"content": NOISE}),
    BadRequest("an unknown mode", "invalid_request", "POST", f"/evaluate?mode={SECRET}", {"json": {"dataset": "demo"}}),
    BadRequest("a set that is an empty folder", "gallery_empty", "POST", "/evaluate", {"json": {"dataset": "empty"}}),
    BadRequest("a set that is gone", "data_invalid", "POST", "/evaluate", {"json": {"dataset": "gone"}}),
    BadRequest("a set without a column", "manifest_invalid", "POST", "/evaluate", {"json": {"dataset": "columns"}}),
    BadRequest("no archive", "missing_file", "POST", "/evaluate", {"content": form(b"x"), "headers": FORM}),
    _archive("an empty archive", "empty_file", b""),
    _archive("no archive at all", "unsupported_archive", NOISE),
    _archive("a compressed tar", "unsupported_archive", tar_of({"a/1.jpg": car_photo()}, "w:gz")),
    _archive("an encrypted zip", "unsupported_archive", _encrypted()),
    _archive("a zip cut off", "archive_invalid", zip_of({"a/1.jpg": car_photo()})[:-30]),
    _archive("a tar cut off", "archive_invalid", tar_of({"a/1.jpg": car_photo()})[:900]),
    _archive("a name that climbs", "archive_unsafe_path", zip_of({"a/../../../x.jpg": car_photo()})),
    _archive("a zip bomb", "archive_bomb", zip_of({"a/1.jpg": bytes(9 << 20)}, zipfile.ZIP_DEFLATED)),
    _archive("an archive of nothing", "evaluation_set_invalid", zip_of({})),
    _archive("photos in no class", "evaluation_set_invalid", zip_of({"1.jpg": car_photo(), "2.jpg": car_photo()})),
    _archive("one photo", "evaluation_set_invalid", zip_of({"a/1.jpg": car_photo()})),
    _archive("no photo that can be decoded", "evaluation_set_invalid", zip_of({"a/1.jpg": b"", "a/2.jpg": NOISE})),
    _archive("one name twice", "duplicate_id", tar_of([("a/1.jpg", car_photo()), ("a/1.jpg", car_photo(1))])),
]

BATCHES = [
    _batch("a batch that is no form", "unsupported_content_type", car_photo(), RAW),
    _batch("an empty batch", "missing_file", multipart()),
    _batch("a batch cut off", "malformed_multipart", multipart(PHOTO, PHOTO, closed=False)),
    _batch("a 65th photo", "multiple_files", multipart(*[PHOTO] * 65)),
    _batch("a parameter in a batch", "unknown_parameter", multipart(PHOTO, part(b"3", "k", None))),
    _batch("a class that no batch finds", "unknown_class", multipart(PHOTO), query="?class=spaceship"),
    _batch("a box that is none", "invalid_box", multipart(PHOTO), query="?box=1"),
    _batch("a k of 0", "invalid_k", multipart(PHOTO), query="?k=0"),
]

BAD_REQUESTS = [*UPLOADS, *BODIES, *BATCHES, *QUERIES, *ADDRESSES, *EVALUATIONS]
