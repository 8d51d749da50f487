"""Uploaded files from a multipart body, in pieces as they arrive.

Starlette's form parser writes file parts to temporary files, gives a part without a file name back as text, and does
not notice that the last boundary is missing. This reads the same syntax by the same library, python-multipart.
"""

import logging
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from model.errors import EmptyFile
from service.errors import MalformedMultipart, MissingFile, MultipleFiles, Overloaded, UnsupportedContentType
from service.http.parameters import refuse_field

WRITE_BYTES = 1 << 20
MAX_OTHER_PARTS = 15
"""Parts of a form beside the files that are asked for."""

EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*utf-8'[^']*'([^\s;]*)", re.IGNORECASE)
EVENTS = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
log = logging.getLogger("carsearch")


def multipart_body(name: str, media_types: str, description: str, *, several: bool = False) -> dict[str, Any]:
    """Documents a body with file parts of one name; FastAPI does not read it, so it does not know of it."""
    file = {"type": "string", "format": "binary", "description": description}
    schema = {
        "type": "object",
        "required": [name],
        "properties": {name: {"type": "array", "items": file} if several else file},
    }
    return {"multipart/form-data": {"schema": schema, "encoding": {name: {"contentType": media_types}}}}


@dataclass(slots=True)
class Photo:
    """One photo of a form: its file name, None for a part without one, and its bytes, as many as are kept."""

    name: str | None
    data: bytearray = field(default_factory=bytearray)
    size_bytes: int = 0


async def receive_photo(request: Request) -> bytes:
    """The file part "file", in memory; raises what `file_pieces` and the middlewares raise."""
    data = b"".join([piece async for _, _, piece in file_pieces(request, "file")])
    if not data:
        raise EmptyFile("The file is empty.")
    return data


async def receive_photos(request: Request, most: int, photo_bytes: int) -> list[Photo]:
    """The parts "file", in their order; of one that is larger than `photo_bytes` nothing is kept. Raises as above."""
    photos: list[Photo] = []
    async for number, name, piece in file_pieces(request, "file", most):
        if number > len(photos):
            photos.append(Photo(name))
        photo = photos[-1]
        photo.size_bytes += len(piece)
        if photo.size_bytes <= photo_bytes:
            photo.data += piece
        else:
            photo.data.clear()
    return photos


async def receive_archive(request: Request, sink: BinaryIO) -> None:
    """Writes the file part "archive" into `sink`; raises as `receive_photo`, and Overloaded when the disk is full."""
    waiting, size_bytes = bytearray(), 0
    async with aclosing(file_pieces(request, "archive")) as pieces:
        async for _, _, piece in pieces:
            waiting += piece
            size_bytes += len(piece)
            if len(waiting) >= WRITE_BYTES:
                await run_in_threadpool(_write, waiting, sink)
    if not size_bytes:
        raise EmptyFile("The file is empty.")
    await run_in_threadpool(_write, waiting, sink)


def _write(waiting: bytearray, sink: BinaryIO) -> None:
    try:
        sink.write(waiting)
        sink.flush()  # a full disk is met here and not when the file is read
    except OSError as problem:
        log.error("an upload cannot be kept: %s", problem)
        raise Overloaded("The server has no room for the archive now; try again later.") from problem
    waiting.clear()


async def file_pieces(
    request: Request, name: str, most: int = 1
) -> AsyncGenerator[tuple[int, str | None, bytes], None]:
    """The parts with this name: the number of a part, from 1, its file name, and a piece of it; first an empty one.

    A part of that name is a file, also without a file name; one of another name that has none is refused. Raises
    UnsupportedContentType, MissingFile, MultipleFiles for more than `most`, UnknownParameter, or MalformedMultipart,
    also for a body that is cut off.
    """
    parts = files = 0
    complete = wanted = False
    filename: str | None = None
    header = value = disposition = b""
    async for event, data in _events(request, name):
        match event:
            case "part_begin":
                parts, wanted, disposition = parts + 1, False, b""
                if parts > most + MAX_OTHER_PARTS:
                    raise MalformedMultipart(f"The body has more than {most + MAX_OTHER_PARTS} parts.")
            case "header_field":
                header += data
            case "header_value":
                value += data
            case "header_end":
                disposition = value if header.lower() == b"content-disposition" else disposition
                header = value = b""
            case "headers_finished":
                part, filename = _names(disposition)
                wanted = part == name
                if part is not None and not wanted and filename is None:
                    refuse_field(request, part, "form field")
                files += wanted
                if files > most:
                    raise MultipleFiles(
                        f'The form has more than {"one file" if most == 1 else f"{most} files"} "{name}".'
                    )
                if wanted:
                    yield files, filename, b""
            case "part_data" if wanted:
                yield files, filename, data
            case "end":
                complete = True
    if not complete:
        raise MalformedMultipart("The multipart body ends before its closing boundary.")
    if not files:
        raise MissingFile(f'The form needs a file named "{name}".')


def _names(disposition: bytes) -> tuple[str | None, str | None]:
    """The name of a part and its file name, also where that is a `filename*` (RFC 5987); None where it has none."""
    _, options = parse_options_header(disposition)
    part, filename = (
        options[key].decode("utf-8", "replace") if key in options else None for key in (b"name", b"filename")
    )
    if filename is None and (extended := EXTENDED_NAME.search(disposition)):
        filename = unquote_to_bytes(extended[1]).decode("utf-8", "replace")
    return part, filename


async def _events(request: Request, name: str) -> AsyncGenerator[tuple[str, bytes], None]:
    """What the parser tells of a body, with the bytes that it tells it of."""
    kind, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1"))
    if kind != b"multipart/form-data":
        raise UnsupportedContentType(f'Send multipart/form-data with a file named "{name}".')
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046, section 5.1.1
        raise MalformedMultipart("The content type names no boundary of 1 to 70 characters.")
    told: list[tuple[str, bytes]] = []

    def teller(event: str) -> Callable[..., None]:
        return lambda data=b"", start=0, end=0: told.append((event, data[start:end]))

    parser = MultipartParser(boundary, {f"on_{event}": teller(event) for event in EVENTS})  # type: ignore[arg-type]
    async for chunk in request.stream():
        try:
            parser.write(chunk)
        except FormParserError as problem:
            raise MalformedMultipart("The multipart body does not follow its syntax.") from problem
        for event in told:
            yield event
        told.clear()
