"""Every error code that the service answers with, and its status."""

from collections.abc import Iterator

from model import archive
from model.errors import CarsearchError
from service import errors

WITHOUT_A_CLASS = {"not_found": 404, "method_not_allowed": 405, "client_disconnected": 400, "internal": 500}
"""Codes of errors that are not ours: Starlette's, a client that left, and bugs."""


def _kinds(error: type[CarsearchError]) -> Iterator[type[CarsearchError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from _kinds(kind)


MODULES = {CarsearchError.__module__, errors.__name__, archive.__name__}
STATUS_OF = WITHOUT_A_CLASS | {
    kind.code: kind.status
    for kind in _kinds(CarsearchError)
    if kind.status is not None and kind.code != CarsearchError.code and kind.__module__ in MODULES
}
"""Code -> status, of all errors that an answer may tell."""
