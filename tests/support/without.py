"""Negative controls: a server that lacks one of its guards, and the test that must then fail.

`WITHOUT_GUARD="pixel limit" python -m tests.support.without serve ...` runs such a server, and `running_server` and
`running_app` do the same where the variable is set. `tests/e2e/catalogue/test_guards.py` runs the tests.
"""

import importlib
import io
import math
import os
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from PIL import Image

from model.errors import ImageUndecodable
from service.http import errors
from service.http.auth import address_of

VARIABLE = "WITHOUT_GUARD"

PICTURES = "tests/e2e/catalogue/test_pictures.py::test_a_picture_is_found_or_refused_as_the_catalogue_says"
REQUESTS = "tests/e2e/catalogue/test_requests.py::test_"
SETS = "tests/e2e/catalogue/test_sets.py::test_a_set_is_evaluated_or_refused_and_touches_no_disk"
INDEX = "tests/e2e/catalogue/test_index.py::test_"
BAD_INDEX = f"{INDEX}a_bad_version_is_refused_with_its_code_and_the_server_stands"
SLOW = "tests/api/test_slow_http.py::test_"
ACCESS = "tests/api/test_access_http.py::test_"


def nothing(*_arguments: object, **_options: object) -> None:
    """A check that is not made."""


def no_limit(*_arguments: object, **_options: object) -> int:
    """A limit that nothing reaches."""
    return 1 << 60


def whatever_pillow_reads(data: bytes, _spec: object = None) -> npt.NDArray[np.uint8]:
    """Every format that Pillow knows."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except Exception as problem:
        raise ImageUndecodable("no picture") from problem


async def until_done(_request: object, running: Any) -> bool:
    """Waits for an answer whether or not anybody will read it."""
    await running
    return True


install = errors.install


def install_with_fastapi_s_own(app: FastAPI, routers: Any) -> None:
    """Our handlers, but for validation errors the one that FastAPI brings."""
    install(app, routers)
    app.add_exception_handler(RequestValidationError, request_validation_exception_handler)  # type: ignore[arg-type]


class Control(NamedTuple):
    """`replaced` is "module:name" or an environment variable, `by` what it is replaced by, `test` what must fail."""

    replaced: str
    by: Any
    test: str


CONTROLS = {
    "declared size": Control(
        "service.http.guard:body_limit",
        no_limit,
        f"{REQUESTS}057_an_upload_of_100_mb_is_refused_before_it_is_read",
    ),
    "counted size": Control(
        "service.http.body_limit:body_limit",
        no_limit,
        f"{REQUESTS}058_an_upload_of_100_mb_in_chunks_is_cut_off_at_the_limit",
    ),
    "head deadline": Control(
        "CARSEARCH_HEAD_DEADLINE_S", "3600", f"{SLOW}062_a_head_that_does_not_come_ends_the_connection[P]"
    ),
    "upload rate": Control(
        "CARSEARCH_MIN_UPLOAD_BYTES_PER_S",
        "1",
        f"{SLOW}063_an_upload_below_the_lowest_rate_is_cut_off_before_its_deadline",
    ),
    "write deadline": Control("CARSEARCH_WRITE_DEADLINE_S", "3600", f"{SLOW}064_who_does_not_read_is_broken_off"),
    "gone clients": Control(
        "service.http.workers:done_while_connected",
        until_done,
        "tests/api/test_limits_http.py::test_065_a_search_whose_client_has_gone_is_never_begun",
    ),
    "keys": Control(
        "service.http.auth:Access.admit",
        lambda _self, scope: address_of(scope),
        f"{ACCESS}067_an_upload_without_a_key_is_refused_before_it_is_sent",
    ),
    "shares": Control(
        "service.http.shares:Shares.room",
        lambda *_: True,
        f"{ACCESS}085_a_client_that_asks_for_all_does_not_shut_out_another",
    ),
    "own validation errors": Control(
        "service.http.errors:install", install_with_fastapi_s_own, f"{REQUESTS}a_k_that_is_none[069 k=0]"
    ),
    "fixed labels": Control(
        "service.http.access_log:route_of",
        lambda scope: scope["path"],
        f"{REQUESTS}073_any_number_of_unknown_addresses_makes_no_new_series",
    ),
    "pixel limit": Control("model.images.decode:MAX_PIXELS", 1 << 40, f"{PICTURES}[012 more pixels than may be]"),
    "formats": Control("model.images.decode:decode", whatever_pillow_reads, f"{PICTURES}[013 GIF of 2 frames]"),
    "memory given back": Control(
        "service.http.server:give_memory_back", nothing, f"{PICTURES}[011 as many pixels as may be, again]"
    ),
    "archive ratio": Control("service.http.archive:MAX_RATIO", math.inf, f"{SETS}[136 300 MB of zeros in one file]"),
    "checksums": Control("model.storage:FileRecord.problem", nothing, f"{BAD_INDEX}[095 a flipped bit]"),
    "read in a child first": Control(
        "indexer.load:Trials.begin", lambda *_: nullcontext(nothing), f"{BAD_INDEX}[096 what crashes its reader]"
    ),
    "room for an index": Control(
        "service.reloader:available_bytes",
        no_limit,
        f"{INDEX}110_a_version_that_does_not_fit_into_memory_is_refused_before_it_is_read",
    ),
}
"""Name of a guard -> its control. To add one: a public name or a setting, and a test that fails without it."""


def take_the_guard_away() -> None:
    """Removes from this process, and from those it starts, the guard that the variable names; none when it is unset."""
    if VARIABLE not in os.environ:
        return
    control = CONTROLS[os.environ[VARIABLE]]
    module, _, name = control.replaced.partition(":")
    if not name:
        os.environ[module] = control.by
        return
    *path, attribute = name.split(".")
    owner: Any = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    getattr(owner, attribute)  # fails when there is no such name any more
    setattr(owner, attribute, control.by)


if __name__ == "__main__":
    from service.cli import main as cli

    take_the_guard_away()
    cli.main()
