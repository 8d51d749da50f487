"""One uploaded file from a multipart body, streamed as it arrives.

Starlette's form parser writes file parts to temporary files, gives a part without a file name back as text, and does
not notice that the last boundary is missing. This reads the same syntax by the same library, python-multipart.
"""

import logging
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from model.errors import EmptyFile
from service.errors import MalformedMultipart, MissingFile, MultipleFiles, Overloaded, UnsupportedContentType

WRITE_BYTES = 1 << 20
MAX_PARTS = 16
log = logging.getLogger("carsearch")


class FileReader:
    """Takes a body in chunks and collects the one file part named `field` in `received`."""

    def __init__(self, content_type: str, field: str) -> None:
        """Raises UnsupportedContentType or MalformedMultipart."""
        kind, options = parse_options_header(content_type.encode("latin-1"))
        if kind != b"multipart/form-data":
            raise UnsupportedContentType(f'Send multipart/form-data with a file named "{field}".')
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= 70:  # RFC 2046, section 5.1.1
            raise MalformedMultipart("The content type names no boundary of 1 to 70 characters.")
        self.field, self.received, self.size_bytes = field, bytearray(), 0
        self._files = self._parts = 0
        self._complete = self._wanted = False
        self._name = self._value = self._disposition = b""
        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
        callbacks = {f"on_{name}": getattr(self, f"_on_{name}") for name in names}
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # its TypedDict wants literal keys

    def feed(self, chunk: bytes) -> None:
        """Raises MalformedMultipart or MultipleFiles."""
        try:
            self._parser.write(chunk)
        except FormParserError as problem:
            raise MalformedMultipart("The multipart body does not follow its syntax.") from problem

    def finish(self) -> None:
        """Raises MalformedMultipart for a body that is cut off, MissingFile or EmptyFile."""
        if not self._complete:
            raise MalformedMultipart("The multipart body ends before its closing boundary.")
        if not self._files:
            raise MissingFile(f'The form needs a file named "{self.field}".')
        if not self.size_bytes:
            raise EmptyFile("The file is empty.")

    def _on_part_begin(self) -> None:
        self._parts += 1
        self._name = self._value = self._disposition = b""
        self._wanted = False
        if self._parts > MAX_PARTS:
            raise MalformedMultipart(f"The body has more than {MAX_PARTS} parts.")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._wanted = b"filename" in options and options.get(b"name") == self.field.encode()
        self._files += self._wanted
        if self._files > 1:
            raise MultipleFiles(f'The form has more than one file "{self.field}".')

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self.received += memoryview(data)[start:end]
            self.size_bytes += end - start

    def _on_end(self) -> None:
        self._complete = True


async def receive_photo(request: Request) -> bytes:
    """The file part "file", in memory; raises what `FileReader` and the middlewares raise."""
    reader = FileReader(request.headers.get("content-type", ""), "file")
    async for chunk in request.stream():
        reader.feed(chunk)
    reader.finish()
    return bytes(reader.received)


async def receive_archive(request: Request, sink: BinaryIO) -> None:
    """Writes the file part "archive" into `sink`; raises as `receive_photo`, and Overloaded when the disk is full."""
    reader = FileReader(request.headers.get("content-type", ""), "archive")
    async for chunk in request.stream():
        reader.feed(chunk)
        if len(reader.received) >= WRITE_BYTES:
            await run_in_threadpool(_write, reader, sink)
    await run_in_threadpool(_write, reader, sink)
    reader.finish()


def _write(reader: FileReader, sink: BinaryIO) -> None:
    try:
        sink.write(reader.received)
        sink.flush()  # a full disk is met here and not when the file is read
    except OSError as problem:
        log.error("an upload cannot be kept: %s", problem)
        raise Overloaded("The server has no room for the archive now; try again later.") from problem
    reader.received.clear()
