"""One uploaded file from a multipart body, in pieces as they arrive.

Starlette's form parser writes file parts to temporary files, gives a part without a file name back as text, and does
not notice that the last boundary is missing. This reads the same syntax by the same library, python-multipart.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from model.errors import EmptyFile
from service.errors import MalformedMultipart, MissingFile, MultipleFiles, Overloaded, UnsupportedContentType

WRITE_BYTES = 1 << 20
MAX_PARTS = 16
EVENTS = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
log = logging.getLogger("carsearch")


def multipart_body(field: str, media_types: str, description: str) -> dict[str, Any]:
    """Documents a body with one file part; FastAPI does not read it, so it does not know of it."""
    schema = {
        "type": "object",
        "required": [field],
        "properties": {field: {"type": "string", "format": "binary", "description": description}},
    }
    return {"multipart/form-data": {"schema": schema, "encoding": {field: {"contentType": media_types}}}}


async def receive_photo(request: Request) -> bytes:
    """The file part "file", in memory; raises what `file_pieces` and the middlewares raise."""
    return b"".join([piece async for piece in file_pieces(request, "file")])


async def receive_archive(request: Request, sink: BinaryIO) -> None:
    """Writes the file part "archive" into `sink`; raises as `receive_photo`, and Overloaded when the disk is full."""
    waiting = bytearray()
    async with aclosing(file_pieces(request, "archive")) as pieces:
        async for piece in pieces:
            waiting += piece
            if len(waiting) >= WRITE_BYTES:
                await run_in_threadpool(_write, waiting, sink)
    await run_in_threadpool(_write, waiting, sink)


def _write(waiting: bytearray, sink: BinaryIO) -> None:
    try:
        sink.write(waiting)
        sink.flush()  # a full disk is met here and not when the file is read
    except OSError as problem:
        log.error("an upload cannot be kept: %s", problem)
        raise Overloaded("The server has no room for the archive now; try again later.") from problem
    waiting.clear()


async def file_pieces(request: Request, field: str) -> AsyncGenerator[bytes, None]:
    """The content of the one file part with this name.

    Raises UnsupportedContentType, MissingFile, MultipleFiles, EmptyFile, or MalformedMultipart, also for a body that is
    cut off.
    """
    parts = files = size_bytes = 0
    complete = wanted = False
    name = value = disposition = b""
    async for event, data in _events(request, field):
        match event:
            case "part_begin":
                parts, wanted, disposition = parts + 1, False, b""
                if parts > MAX_PARTS:
                    raise MalformedMultipart(f"The body has more than {MAX_PARTS} parts.")
            case "header_field":
                name += data
            case "header_value":
                value += data
            case "header_end":
                disposition = value if name.lower() == b"content-disposition" else disposition
                name = value = b""
            case "headers_finished":
                _, options = parse_options_header(disposition)
                wanted = b"filename" in options and options.get(b"name") == field.encode()
                files += wanted
                if files > 1:
                    raise MultipleFiles(f'The form has more than one file "{field}".')
            case "part_data" if wanted:
                size_bytes += len(data)
                yield data
            case "end":
                complete = True
    if not complete:
        raise MalformedMultipart("The multipart body ends before its closing boundary.")
    if not files:
        raise MissingFile(f'The form needs a file named "{field}".')
    if not size_bytes:
        raise EmptyFile("The file is empty.")


async def _events(request: Request, field: str) -> AsyncGenerator[tuple[str, bytes], None]:
    """What the parser tells of a body, with the bytes that it tells it of."""
    kind, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1"))
    if kind != b"multipart/form-data":
        raise UnsupportedContentType(f'Send multipart/form-data with a file named "{field}".')
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
