"""Cases 136 to 155 of the catalogue: labelled sets that are damaged, hostile, or named in many ways."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from tests.e2e.catalogue.pictures import QUERY
from tests.e2e.catalogue.standing import Standing
from tests.support.bodies import tar_of, zip_of
from tests.support.calls import eventually
from tests.support.photos import KOREAN, car_photo, car_pixels, jpeg

MIB = 1 << 20
PHOTOS = {f"{kind}/{shot}.jpg": car_photo(kind, shot) for kind in range(2) for shot in range(3)}


def form_of(archive: bytes) -> dict[str, Any]:
    return {"files": {"archive": ("set.zip", archive)}}


def zeros(members: int, size: int) -> bytes:
    """A zip whose members unpack to zeros; each is packed a thousand times."""
    return zip_of([(f"a/{number}.jpg", bytes(size)) for number in range(members)], zipfile.ZIP_DEFLATED)


def overlapping() -> bytes:
    """Two entries of the directory that name one file."""
    plain = bytearray(zip_of(PHOTOS))
    first = plain.index(b"PK\x01\x02")
    second = plain.index(b"PK\x01\x02", first + 4)
    plain[second + 42 : second + 46] = plain[first + 42 : first + 46]
    return bytes(plain)


def lying_size(declared: int) -> bytes:
    """A zip whose first member says another size than it has, in both of its headers."""
    plain = bytearray(zip_of(PHOTOS, zipfile.ZIP_DEFLATED))
    for at in (plain.index(b"PK\x03\x04") + 22, plain.index(b"PK\x01\x02") + 24):
        plain[at : at + 4] = struct.pack("<I", declared)
    return bytes(plain)


def renamed(name: str) -> bytes:
    return zip_of({**PHOTOS, name: car_photo()})


def link(content: bytes) -> bytes:
    buffer = io.BytesIO(zip_of(PHOTOS))
    with zipfile.ZipFile(buffer, "a") as archive:
        entry = zipfile.ZipInfo("0/link.jpg")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, content)
    return buffer.getvalue()


def flagged(bit: int, method: int | None = None) -> bytes:
    """A zip whose first entry claims a flag or a method of compression."""
    plain = bytearray(zip_of(PHOTOS))
    at = plain.index(b"PK\x01\x02")
    plain[at + 8] |= bit
    if method is not None:
        plain[at + 10 : at + 12] = struct.pack("<H", method)
    return bytes(plain)


def damaged_member() -> bytes:
    plain = bytearray(zip_of(PHOTOS))
    plain[plain.index(b"\xff\xd8\xff") + 700] ^= 0xFF
    return bytes(plain)


def nameless() -> bytes:
    plain = bytearray(zip_of({**PHOTOS, "z": b""}))
    at = plain.rindex(b"PK\x01\x02")
    plain[at + 28 : at + 32] = b"\0\0\x01\0"  # the name's one character is an extra field now
    return bytes(plain)


def twice() -> bytes:
    return zip_of({**PHOTOS, "0/9.jpg": car_photo(5)}).replace(b"0/9.jpg", b"0/0.jpg")


def sets() -> Iterator[tuple[str, str, Callable[[], bytes], str]]:
    """Number, what it is, the archive, and the code of its answer."""
    plain = zip_of(PHOTOS)
    no_set = "evaluation_set_invalid"
    yield "136", "300 MB of zeros in one file", partial(zeros, 1, 300 * MIB), "archive_bomb"
    yield "136", "entries that overlap", overlapping, "ok"
    yield (
        "137",
        "30,000 empty entries",
        lambda: zip_of([(f"a/{n}.jpg", b"") for n in range(30_000)]),
        "archive_too_large",
    )
    yield "137", "a size below the real one", partial(lying_size, 10), "ok"
    yield "137", "a size above the real one", partial(lying_size, 50_000), "ok"
    for what, method in (("bzip2", zipfile.ZIP_BZIP2), ("LZMA", zipfile.ZIP_LZMA)):
        yield "138", what, partial(zip_of, PHOTOS, method), "unsupported_archive"
    yield "138", "Deflate64", partial(flagged, 0, 9), "unsupported_archive"
    yield "138", "encrypted", partial(flagged, 1), "unsupported_archive"
    for name in ("../x.jpg", "/etc/x.jpg", "C:/x.jpg", "..\\x.jpg", "a/../../x.jpg", "a/" + "x" * 5000 + ".jpg"):
        yield "139", name[:16], partial(renamed, name), "archive_unsafe_path"
    yield "141", "a zip in a zip", lambda: zip_of({**PHOTOS, "0/inner.zip": plain}), "ok"
    yield "141", "a tar that is packed", partial(tar_of, PHOTOS, "w:gz"), "unsupported_archive"
    yield "141", "gzip", partial(gzip.compress, plain), "unsupported_archive"
    yield "141", "bzip2 itself", partial(bz2.compress, plain), "unsupported_archive"
    yield "141", "xz itself", partial(lzma.compress, plain), "unsupported_archive"
    yield "141", "rar", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(500), "unsupported_archive"
    yield "141", "7z", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(500), "unsupported_archive"
    yield "142", "a file without a name", nameless, "archive_invalid"
    yield "142", "a zip cut off", lambda: plain[: len(plain) * 9 // 10], "archive_invalid"
    yield "142", "a tar cut off", lambda: tar_of(PHOTOS)[:8000], "archive_invalid"
    yield "142", "a member with a wrong checksum", damaged_member, "ok"
    yield "142", "bytes before the zip", lambda: b"#!/bin/sh\n" + plain, "unsupported_archive"
    yield "144", "a name twice", twice, "duplicate_id"
    yield (
        "145",
        "no class folder",
        lambda: zip_of({"a.jpg": car_photo()}),
        "evaluation_set_invalid",
    )
    yield (
        "148",
        "one photo a class",
        lambda: zip_of({"a/1.jpg": car_photo(0), "b/1.jpg": car_photo(1)}),
        "evaluation_set_invalid",
    )
    yield "149", "an empty zip", lambda: zip_of({}), no_set
    yield "149", "an empty tar, which is zeros", lambda: tar_of({}), "unsupported_archive"
    yield "149", "nothing but texts", lambda: zip_of({"a/1.txt": b"1", "a/2.txt": b"2"}), no_set
    yield "155", "more than is answered at once", lambda: zip_of(_many(501)), "evaluation_too_large"


def _many(number: int) -> list[tuple[str, bytes]]:
    return [(f"a/{one}.jpg", b"x") for one in range(number)]


@pytest.mark.parametrize("case", list(sets()), ids=lambda case: f"{case[0]} {case[1]}")
def test_a_set_is_evaluated_or_refused_and_touches_no_disk(
    standing: Standing, case: tuple[str, str, Callable[[], bytes], str]
) -> None:
    _, _, make, code = case
    with standing.case(code, "passwd") as send:
        answered = send("/evaluate", **form_of(make())).json()
    if code == "ok":  # whatever was wrong with one file is in the report, and the others count
        assert answered["total"] + len(answered["skipped"]) >= len(PHOTOS)


def spelled(how: str) -> bytes:
    """A set whose Korean class is spelled in one of the ways that archives have."""
    name = unicodedata.normalize("NFD", KOREAN) if how == "NFD" else KOREAN
    if how in ("UTF-8", "NFD"):
        return zip_of({f"{name}/{path}" if path[0] == "0" else path: data for path, data in PHOTOS.items()})
    plain = zip_of({f"QQQQQQ/{path}" if path[0] == "0" else path: data for path, data in PHOTOS.items()})
    if how == "CP949":
        return plain.replace(b"QQQQQQ", name.encode("cp949"))
    return _with_unicode_path(name)


def _with_unicode_path(name: str) -> bytes:
    """The name is rubbish, and Info-ZIP's extra field says what it means."""
    buffer = io.BytesIO(zip_of({path: data for path, data in PHOTOS.items() if path[0] == "1"}))
    with zipfile.ZipFile(buffer, "a") as archive:
        for shot in range(3):
            entry = zipfile.ZipInfo(f"rubbish/{shot}.jpg")
            meant = f"{name}/{shot}.jpg".encode()
            extra = b"\x01" + struct.pack("<I", zlib.crc32(entry.filename.encode())) + meant
            entry.extra = struct.pack("<HH", 0x7075, len(extra)) + extra
            archive.writestr(entry, car_photo(0, shot))
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["UTF-8", "NFD", "CP949", "extra field"], ids=lambda how: f"143 {how}")
def test_a_korean_class_is_one_class_however_it_is_spelled(standing: Standing, how: str) -> None:
    with standing.case("ok") as send:
        report = send("/evaluate", **form_of(spelled(how))).json()
    assert {score["class"] for score in report["per_class"]} == {KOREAN, "1"}


def test_146_a_photo_without_another_of_its_class_is_named_and_not_hidden(standing: Standing) -> None:
    with standing.case("ok") as send:
        report = send("/evaluate", **form_of(zip_of({**PHOTOS, "alone/1.jpg": car_photo(7)}))).json()
    assert report["total"] == 7
    assert "alone/1.jpg" in str(report["unanswerable"])


def test_150_photos_that_cannot_be_read_are_counted_and_the_others_scored(standing: Standing) -> None:
    bad = {f"0/bad{number}.jpg": car_photo()[:300] for number in range(3)}
    with standing.case("ok") as send:
        report = send("/evaluate", **form_of(zip_of({**PHOTOS, **bad}))).json()
    assert (report["total"], len(report["skipped"])) == (6, 3)


def test_154_the_same_set_twice_gives_the_same_and_at_once_one_waits(standing: Standing) -> None:
    archive = zip_of({f"{kind}/{shot}.jpg": jpeg(car_pixels(kind, shot)) for kind in range(8) for shot in range(12)})

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{standing.server.url}/evaluate", timeout=60, **form_of(archive))

    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(ask, range(2)))
    answers += [ask(0)]
    assert {answer.status_code for answer in answers} <= {200, 429}
    reports = [answer.json() for answer in answers if answer.status_code == 200]
    assert len({report["top1"] for report in reports}) == 1
    standing.assert_stands()


def test_153_an_evaluation_whose_client_is_gone_ends_and_leaves_nothing(standing: Standing) -> None:
    photo = QUERY.read_bytes()
    archive = zip_of({f"{number % 5}/{number}.jpg": photo + bytes([number]) for number in range(200)})
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{standing.server.url}/evaluate", timeout=httpx.Timeout(60, read=0.3), **form_of(archive))
    eventually(lambda: "carsearch_evaluation_running 0.0" in standing.server.client.get("/metrics").text, "it ended")
    standing.assert_stands()


@pytest.mark.parametrize("content", [b"/etc/passwd", car_photo(4)], ids=["a path", "a photo"])
def test_140_a_link_in_a_zip_is_named_and_never_followed(standing: Standing, content: bytes) -> None:
    with standing.case("ok", "passwd") as send:
        report = send("/evaluate", **form_of(link(content))).json()
    assert (report["total"], [one["name"] for one in report["skipped"]]) == (6, ["0/link.jpg"])


def test_140_links_in_a_tar_are_named_and_never_followed(standing: Standing) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in PHOTOS.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            entry = tarfile.TarInfo(f"0/{kind.decode()}.jpg")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    with standing.case("ok", "passwd") as send:
        report = send("/evaluate", **form_of(buffer.getvalue())).json()
    assert (report["total"], len(report["skipped"])) == (6, 4)
