"""The HTTP status of every error code, as the exceptions have it."""

from collections.abc import Iterator

import service.http.archive  # noqa: F401  # its exceptions are listed too
from model.errors import CarsearchError


def _kinds(kind: type[CarsearchError] = CarsearchError) -> Iterator[type[CarsearchError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


STATUS_OF = {
    **{kind.code: kind.status for kind in _kinds() if kind.status is not None},
    "not_found": 404,
    "method_not_allowed": 405,
    "client_disconnected": 400,
    "internal": 500,
}
"""Code -> status, of all that the server answers."""
