"""Negative controls: a server that lacks one of its guards, and the test that must then fail.

`WITHOUT_GUARD="pixel limit" python -m tests.support.without serve ...` runs such a server, and `running_server` and
`running_app` do the same where the variable is set. `tests/e2e/catalogue/test_guards.py` runs the tests.
"""

import importlib
import io
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from fastapi import Request, Response
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from PIL import Image
from starlette.types import ASGIApp

from model.errors import ImageUndecodable
from service.http.admission import FairShare
from service.http.body_limit import BodyLimit
from service.http.context import RouteInfo, RouteTable, context_of
from service.http.errors import response_to
from service.http.limits import Limits
from service.http.protocol import LimitedHttpProtocol, limited_protocol

find = RouteTable.find
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


async def fastapi_s_own(request: Request, error: Exception) -> Response:
    """Our handler, but for validation errors the one that FastAPI brings."""
    if isinstance(error, RequestValidationError):
        return await request_validation_exception_handler(request, error)
    return response_to(error, context_of(request.scope))


def fits(share: FairShare, _client: str, amount: int = 1) -> bool:
    """Room for whoever comes first."""
    return amount <= share.limit - share.taken


def path_as_label(table: RouteTable, path: str) -> RouteInfo:
    """The route of a path, named by the path."""
    return replace(find(table, path), template=path)


def body_limit_without(**changes: Any) -> Callable[..., BodyLimit]:
    """The middleware with some limits out of reach."""

    def make(app: ASGIApp, max_body_bytes: int, limits: Limits) -> BodyLimit:
        largest = int(changes.get("archive_bytes", max_body_bytes))
        return BodyLimit(app, largest, replace(limits, **changes))

    return make


def protocol_without(**changes: Any) -> Callable[[Limits], type[LimitedHttpProtocol]]:
    """The protocol with some limits out of reach."""
    return lambda given: limited_protocol(replace(given, **changes))


class Control(NamedTuple):
    """`replaced` is "module:name" or an environment variable, `by` what it is replaced by, `test` what must fail."""

    replaced: str
    by: Any
    test: str


CONTROLS = {
    "declared size": Control(
        "service.http.body_limit:declared_bytes",
        lambda _scope: 0,
        f"{REQUESTS}057_an_upload_of_100_mb_is_refused_before_it_is_read",
    ),
    "counted size": Control(
        "service.http.app:BodyLimit",
        body_limit_without(archive_bytes=1 << 60),
        f"{REQUESTS}058_an_upload_of_100_mb_in_chunks_is_cut_off_at_the_limit",
    ),
    "upload rate": Control(
        "service.http.app:BodyLimit",
        body_limit_without(upload_grace_s=3600),
        f"{SLOW}063_an_upload_below_the_lowest_rate_is_cut_off_before_its_deadline",
    ),
    "head deadline": Control(
        "service.http.server:limited_protocol",
        protocol_without(head_deadline_s=3600),
        f"{SLOW}062_a_head_that_does_not_come_ends_the_connection[P]",
    ),
    "write deadline": Control(
        "service.http.server:limited_protocol",
        protocol_without(write_deadline_s=3600),
        f"{SLOW}064_who_does_not_read_is_broken_off",
    ),
    "gone clients": Control(
        "service.http.workers:done_while_connected",
        until_done,
        "tests/api/test_limits_http.py::test_065_a_search_whose_client_has_gone_is_never_begun",
    ),
    "keys": Control(
        "service.http.app:read_keys",
        lambda _path: [],
        f"{ACCESS}067_an_upload_without_a_key_is_refused_before_it_is_sent",
    ),
    "fair shares": Control(
        "service.http.admission:FairShare.has_room",
        fits,
        f"{ACCESS}085_a_client_that_asks_for_all_does_not_shut_out_another",
    ),
    "own validation errors": Control(
        "service.http.errors:handle", fastapi_s_own, f"{REQUESTS}a_k_that_is_none[069 k=0]"
    ),
    "fixed labels": Control(
        "service.http.context:RouteTable.find",
        path_as_label,
        f"{REQUESTS}073_any_number_of_unknown_addresses_makes_no_new_series",
    ),
    "pixel limit": Control("model.images.decode:MAX_PIXELS", 1 << 40, f"{PICTURES}[012 more pixels than may be]"),
    "formats": Control("model.images.decode:decode", whatever_pillow_reads, f"{PICTURES}[013 GIF of 2 frames]"),
    "archive ratio": Control("service.http.archive:MAX_RATIO", math.inf, f"{SETS}[136 300 MB of zeros in one file]"),
    "checksums": Control("model.storage:FileRecord.problem", nothing, f"{BAD_INDEX}[095 a flipped bit]"),
    "loading mark": Control(
        "service.reloader:_marked_as_loading",
        lambda *_: nullcontext(),
        f"{INDEX}096_a_version_that_crashed_a_server_is_refused_by_the_next_one",
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
