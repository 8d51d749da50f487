"""Errors that only a server and its client have; those of photos, models and indexes are in `model.errors`."""

from model.errors import CarsearchError


class MalformedMultipart(CarsearchError, code="malformed_multipart", status=400): ...


class MalformedJson(CarsearchError, code="malformed_json", status=400): ...


class Unauthorized(CarsearchError, code="unauthorized", status=401): ...


class Forbidden(CarsearchError, code="forbidden", status=403): ...


class UnknownEvaluation(CarsearchError, code="unknown_evaluation", status=404): ...


class NotAcceptable(CarsearchError, code="not_acceptable", status=406): ...


class UploadTimeout(CarsearchError, code="upload_timeout", status=408): ...


class PayloadTooLarge(CarsearchError, code="payload_too_large", status=413): ...


class UnsupportedContentType(CarsearchError, code="unsupported_content_type", status=415): ...


class UnsupportedContentEncoding(CarsearchError, code="unsupported_content_encoding", status=415): ...


class MissingFile(CarsearchError, code="missing_file", status=422): ...


class MultipleFiles(CarsearchError, code="multiple_files", status=422): ...


class InvalidRequest(CarsearchError, code="invalid_request", status=422): ...


class UnknownParameter(CarsearchError, code="unknown_parameter", status=422): ...


class Overloaded(CarsearchError, code="overloaded", status=429):
    """The server has no room for a request now; another try may find room."""


class GalleryFull(CarsearchError, code="gallery_full", status=507):
    """As many changes stand beside the index as may; a fold makes room."""


class NotReady(CarsearchError, code="not_ready", status=503): ...


class Draining(CarsearchError, code="draining", status=503): ...


class DeadlineExceeded(CarsearchError, code="deadline_exceeded", status=503): ...


class ServerUnusable(CarsearchError, code="server_unusable"):
    """A server that cannot be asked, or that does not answer as carsearch does."""


class ServerRefused(CarsearchError, code="server_refused"):
    """A problem that a server answered with: its sentence is `told`, its code `told_code`."""

    def __init__(self, told_code: str, told: str) -> None:
        super().__init__(f"{told} ({told_code})")
        self.told_code, self.told = told_code, told
