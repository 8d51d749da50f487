"""A server that lacks some of its guards: `WITHOUT_GUARDS=a,b python -m tests.support.without serve ...`.

Each guard is taken away by one patch, in the process of the server and nowhere else.
`tests/e2e/catalogue/test_guards.py` shows with them that the test of a guard fails when the guard is not there.
"""

import io
import math
import os
from typing import Any

import numpy as np
from fastapi.exception_handlers import request_validation_exception_handler
from PIL import Image

from model import storage as files
from model.errors import ImageUndecodable
from model.images import decode as preprocess
from model.images import transform
from model.types import Pixels
from service import reloader as serving
from service.cli import main as cli
from service.http import access_log as answer
from service.http import archive, guard, server, shares
from service.http import auth as access
from service.http import body_limit as intake
from service.http import errors as problems
from service.http import protocol as http_protocol
from service.http import workers as pool

VARIABLE = "WITHOUT_GUARDS"


def nothing(*_arguments: object, **_options: object) -> None:
    """A check that is not made."""


def whatever_pillow_reads(data: bytes, _spec: object = None) -> Pixels:
    """Every format that Pillow knows."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except Exception as problem:
        raise ImageUndecodable("no picture") from problem


async def until_done(_request: object, running: Any) -> bool:
    """Waits for an answer whether or not anybody will read it."""
    await running
    return True


GUARDS: dict[str, tuple[Any, str, Any]] = {
    "declared size": (guard, "body_limit", lambda *_, **__: 1 << 40),
    "counted size": (intake, "body_limit", lambda *_, **__: 1 << 40),
    "upload rate": (intake.Intake, "_deadline_s", lambda _self: 3600.0),
    "head deadline": (http_protocol.BoundedHttpProtocol, "_await_head", nothing),
    "write deadline": (http_protocol.BoundedHttpProtocol, "await_write", nothing),
    "keys": (access.Access, "admit", lambda _self, scope: access.address_of(scope)),
    "shares": (shares.Shares, "room", lambda *_: True),
    "gone clients": (pool, "done_while_connected", until_done),
    "pixel limit": (preprocess, "MAX_PIXELS", 1 << 40),
    "formats": (transform, "decode", whatever_pillow_reads),
    "orientation": (preprocess, "_orientation", lambda _image: 1),
    "own validation errors": (problems, "_on_invalid_request", request_validation_exception_handler),
    "fixed labels": (answer, "route_of", lambda scope: scope["path"]),
    "archive ratio": (archive, "MAX_RATIO", math.inf),
    "archive paths": (archive, "_is_unsafe", lambda *_: False),
    "archive links": (archive, "_not_a_file", nothing),
    "archive names": (archive, "_zip_name", lambda entry: entry.filename),
    "memory given back": (server, "give_memory_back", nothing),
    "room for an index": (serving.Serving, "_refuse_too_large", nothing),
    "checksums": (files.FileRecord, "problem", nothing),
}
"""Name -> what is replaced, and by what."""

if __name__ == "__main__":
    for name in os.environ[VARIABLE].split(","):
        owner, attribute, value = GUARDS[name]
        setattr(owner, attribute, value)
    cli.main()
