"""One uploaded file from a multipart body, streamed into a sink as it arrives.

Starlette's form parser puts no limit on file parts and writes them to temporary files of its own; this reads the same
syntax (python-multipart) into memory or into one unlinked file.
"""

import logging
from collections.abc import AsyncIterator
from typing import BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from model.errors import EmptyFile
from service.http.errors import MalformedMultipart, MissingFile, MultipleFiles, Overloaded, UnsupportedContentType

WRITE_BYTES = 1 << 20
MAX_PARTS = 16
log = logging.getLogger("carsearch")


class _Parts:
    """Callbacks of the parser: collects the bytes of the one part that is a file of the wanted name."""

    def __init__(self, field: str) -> None:
        self.field = field.encode()
        self.files = 0
        self.parts = 0
        self.received = bytearray()
        self.complete = False
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._wanted = False

    def on_end(self) -> None:
        self.complete = True

    def on_part_begin(self) -> None:
        self.parts += 1
        self._header = self._value = self._disposition = b""
        self._wanted = False
        if self.parts > MAX_PARTS:
            raise MalformedMultipart(f"The body has more than {MAX_PARTS} parts.")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            return
        self._wanted = options.get(b"name") == self.field
        self.files += self._wanted
        if self.files > 1:
            raise MultipleFiles(f'The form has more than one file "{self.field.decode()}".')

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self.received += memoryview(data)[start:end]


async def receive_bytes(request: Request, field: str) -> bytes:
    """The file part named `field`, in memory; raises as `receive_file` does."""
    parts = _Parts(field)
    async for _ in _parsed(request, parts):
        pass  # a photo is small enough to be collected
    _refuse_incomplete(parts, len(parts.received))
    return bytes(parts.received)


async def receive_file(request: Request, field: str, sink: BinaryIO) -> int:
    """Streams the file part named `field` into `sink`; returns its size in bytes.

    Raises UnsupportedContentType, MalformedMultipart, MissingFile, MultipleFiles or EmptyFile, Overloaded when
    the sink is full, and whatever the guard raises for a body that is too large or too slow.
    """
    parts = _Parts(field)
    size = 0
    async for _ in _parsed(request, parts):
        if len(parts.received) >= WRITE_BYTES:
            size += await _flush(parts, sink)
    size += await _flush(parts, sink)
    _refuse_incomplete(parts, size)
    return size


async def _parsed(request: Request, parts: _Parts) -> AsyncIterator[None]:
    """Feeds the body into the parser; gives control back after each chunk."""
    parser = _parser(request, parts)
    async for chunk in request.stream():
        try:
            parser.write(chunk)
        except FormParserError as problem:
            raise MalformedMultipart("The multipart body does not follow its syntax.") from problem
        yield


def _refuse_incomplete(parts: _Parts, size: int) -> None:
    if not parts.complete:
        raise MalformedMultipart("The multipart body ends before its closing boundary.")
    if not parts.files:
        raise MissingFile(f'The form needs a file named "{parts.field.decode()}".')
    if not size:
        raise EmptyFile("The file is empty.")


def _parser(request: Request, parts: _Parts) -> MultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1"))
    if kind != b"multipart/form-data":
        raise UnsupportedContentType(f'Send multipart/form-data with a file named "{parts.field.decode()}".')
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046, section 5.1.1
        raise MalformedMultipart("The content type names no boundary of 1 to 70 characters.")
    names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
    callbacks = {f"on_{name}": getattr(parts, f"on_{name}") for name in names}
    return MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # its TypedDict wants literal keys


async def _flush(parts: _Parts, sink: BinaryIO) -> int:
    data = bytes(parts.received)
    parts.received.clear()
    if data:
        try:
            await run_in_threadpool(_write, sink, data)
        except OSError as problem:
            log.error("an upload cannot be kept: %s", problem)
            raise Overloaded("The server has no room for the archive now; try again later.") from problem
    return len(data)


def _write(sink: BinaryIO, data: bytes) -> None:
    sink.write(data)
    sink.flush()  # a full disk is met here and not when the file is read
