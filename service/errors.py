"""Errors that only a server has; those of photos, models and indexes are in `model.errors`."""

from model.errors import CarsearchError


class RequestRefused(CarsearchError):
    """Base of the errors that only a server has."""


class MalformedMultipart(RequestRefused, code="malformed_multipart", status=400): ...


class MalformedJson(RequestRefused, code="malformed_json", status=400): ...


class Unauthorized(RequestRefused, code="unauthorized", status=401): ...


class Forbidden(RequestRefused, code="forbidden", status=403): ...


class UnknownEvaluation(RequestRefused, code="unknown_evaluation", status=404): ...


class UploadTimeout(RequestRefused, code="upload_timeout", status=408): ...


class PayloadTooLarge(RequestRefused, code="payload_too_large", status=413): ...


class UnsupportedContentType(RequestRefused, code="unsupported_content_type", status=415): ...


class MissingFile(RequestRefused, code="missing_file", status=422): ...


class MultipleFiles(RequestRefused, code="multiple_files", status=422): ...


class InvalidRequest(RequestRefused, code="invalid_request", status=422): ...


class Overloaded(RequestRefused, code="overloaded", status=429):
    """The server has no room for a request now; another try may find room."""


class NotReady(RequestRefused, code="not_ready", status=503): ...


class Draining(RequestRefused, code="draining", status=503): ...


class DeadlineExceeded(RequestRefused, code="deadline_exceeded", status=503): ...
