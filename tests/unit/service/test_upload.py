"""The multipart reader: how a body is cut into chunks never matters, and whatever it holds, the errors are ours."""

import asyncio
import io
from collections.abc import Sequence
from itertools import pairwise

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from starlette.types import Message

from model.errors import CarsearchError, EmptyFile
from service.errors import (
    MalformedMultipart,
    MissingFile,
    MultipleFiles,
    Overloaded,
    UnknownParameter,
    UnsupportedContentType,
)
from service.http.upload import MAX_OTHER_PARTS, WRITE_BYTES, receive_archive, receive_photo
from tests.support.bodies import BOUNDARY, FORM, form, multipart, part


def request_of(chunks: Sequence[bytes], content_type: str = FORM["Content-Type"]) -> Request:
    """A request whose body arrives in chunks."""
    waiting = list(chunks)

    async def receive() -> Message:
        chunk = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    headers = [(b"content-type", content_type.encode("latin-1"))]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}, receive)


def received(chunks: Sequence[bytes], content_type: str = FORM["Content-Type"]) -> bytes:
    """The file of a body that arrives in chunks."""
    return asyncio.run(receive_photo(request_of(chunks, content_type)))


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(borders)]


# What could be taken for the end of a part is the likeliest to be read wrongly.
contents = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n", b"--", BOUNDARY.encode(), b"\r\n--", b"\r\n--front"]))
).map(b"".join)


@tried(deadline=None)
@given(data=contents, places=st.lists(st.integers(0, 10_000), max_size=12))
def test_any_chunking_gives_the_same_file(data: bytes, places: list[int]) -> None:
    body = multipart(part(b"other", "name"), part(data), part(b"more", "note"))
    if f"\r\n--{BOUNDARY}".encode() in b"\r\n" + data or not data:
        return
    assert received(cut(body, places)) == data


def test_one_byte_at_a_time_gives_the_same_file() -> None:
    body = form(bytes(range(256)))
    assert received([body[place : place + 1] for place in range(len(body))]) == bytes(range(256))


def test_a_photo_and_an_archive_of_several_megabytes_arrive_whole() -> None:
    data = bytes(range(256)) * (3 << 12)
    assert len(data) > 2 * WRITE_BYTES
    places = range(0, len(data), 65_536)
    assert asyncio.run(receive_photo(request_of(cut(form(data), places)))) == data
    with io.BytesIO() as sink:
        asyncio.run(receive_archive(request_of(cut(form(data, "archive"), places)), sink))
        assert sink.getvalue() == data


@tried(max_examples=300, deadline=None)
@given(body=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=5))
def test_random_bytes_are_refused_in_one_of_our_errors(body: bytes, places: list[int]) -> None:
    with pytest.raises(CarsearchError):
        received(cut(body, places))


@tried(max_examples=300, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_form_gives_a_file_or_one_of_our_errors(edits: list[tuple[int, int]]) -> None:
    body = bytearray(multipart(part(b"other", "name"), part(b"photo" * 20)))
    for place, value in edits:
        body[place % len(body)] = value
    try:
        assert len(received([bytes(body)])) <= len(body)
    except CarsearchError as problem:
        codes = {"malformed_multipart", "missing_file", "empty_file", "unknown_parameter", "multiple_files"}
        assert problem.code in codes  # noqa: PT017


@tried(max_examples=300, deadline=None)
@given(disposition=st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=60))
def test_any_part_header_gives_a_file_or_one_of_our_errors(disposition: str) -> None:
    header = b"Content-Disposition: form-data; name=file; filename=a; " + disposition.encode("latin-1")
    try:
        assert received([multipart(header + b"\r\n\r\nphoto")]) == b"photo"
    except CarsearchError as problem:
        assert problem.code in {"malformed_multipart", "missing_file"}  # noqa: PT017


@tried(max_examples=300, deadline=None)
@given(content_type=st.text(st.characters(codec="latin-1"), max_size=60))
def test_any_content_type_that_is_not_the_forms_own_is_refused(content_type: str) -> None:
    for prefix in ("", "multipart/form-data;", "multipart/form-data; boundary="):
        with pytest.raises(CarsearchError):
            received([form(b"photo")], prefix + content_type.replace(BOUNDARY, ""))


@pytest.mark.parametrize(
    ("body", "content_type", "refused"),
    [
        pytest.param(multipart(*[part(b"", "n")] * (MAX_OTHER_PARTS + 2)), "", MalformedMultipart, id="too many parts"),
        pytest.param(multipart(part(b"x"), part(b"y")), "", MultipleFiles, id="two files"),
        pytest.param(multipart(part(b"x", "other")), "", MissingFile, id="another name"),
        pytest.param(multipart(part(b"x", "k", None)), "", UnknownParameter, id="a field"),
        pytest.param(form(b""), "", EmptyFile, id="empty"),
        pytest.param(form(b"x")[:-6], "", MalformedMultipart, id="not closed"),
        pytest.param(b"", "", MalformedMultipart, id="no body"),
        pytest.param(form(b"x"), "multipart/mixed; boundary=a", UnsupportedContentType, id="another type"),
        pytest.param(form(b"x"), "multipart/form-data; boundary=", MalformedMultipart, id="an empty boundary"),
        pytest.param(form(b"x"), "multipart/form-data; boundary=" + "x" * 71, MalformedMultipart, id="a long boundary"),
    ],
)
def test_a_wrong_form_is_refused(body: bytes, content_type: str, refused: type[CarsearchError]) -> None:
    with pytest.raises(refused):
        received([body], content_type or FORM["Content-Type"])


@pytest.mark.parametrize(
    "disposition",
    [
        'form-data; name="file"; filename=""',
        "form-data; name=file; filename=a.jpg; filename*=UTF-8''%EC%95%84.jpg",
        'FORM-DATA; filename="a\\"b.jpg"; name="file"',
        'form-data; name="file"; filename="../../etc/passwd"',
        'form-data; name="file"',
        "form-data; name=file; filename*=UTF-8''%EC%95%84.jpg",
    ],
)
def test_every_spelling_of_a_file_part_is_understood(disposition: str) -> None:
    assert received([multipart(f"content-disposition: {disposition}\r\n\r\nphoto".encode())]) == b"photo"


def test_a_full_disk_is_told_and_not_taken_for_a_failure() -> None:
    request = request_of([form(b"photo", "archive")])
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(Overloaded, match="no room for the archive"):  # noqa: PTH123
        asyncio.run(receive_archive(request, full))


def test_as_many_parts_as_allowed_are_read() -> None:
    assert received([multipart(*[part(b"1", "n")] * MAX_OTHER_PARTS, part(b"photo"))]) == b"photo"
