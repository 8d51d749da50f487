"""Negative controls: a server that lacks one of its guards, and the test that must then fail.

`WITHOUT_GUARD="checksums" python -m tests.support.without serve ...` runs such a server; `running_server`,
`changed_server`, `wire_server` and `running_app` do the same where the variable is set.
`tests/e2e/catalogue/test_guards.py` runs the tests.

A test that asserts the code of an error needs no control: without the error it fails. These assert that something does
not happen, or happens early.
"""

import importlib
import os
from dataclasses import replace
from typing import Any, NamedTuple

from service.http.access_log import RouteTable
from service.http.admission import FairShare
from service.http.context import RouteInfo

find = RouteTable.find
VARIABLE = "WITHOUT_GUARD"

CATALOGUE = "tests/e2e/catalogue"
INDEX = f"{CATALOGUE}/test_index.py::test_"


def nothing(*_arguments: object, **_options: object) -> None:
    """A check that is not made."""


async def until_done(_request: object, running: Any) -> bool:
    """Waits for an answer whether or not anybody will read it."""
    await running
    return True


def fits(share: FairShare, _client: str, amount: int = 1) -> bool:
    """Room for whoever comes first."""
    return amount <= share.limit - share.taken


def path_as_label(table: RouteTable, path: str, method: str = "GET") -> RouteInfo:
    """The route of a path, named by the path."""
    return replace(find(table, path, method), template=path)


class Control(NamedTuple):
    """`replaced` is "module:name", `by` what it is replaced by, `test` what must fail then."""

    replaced: str
    by: Any
    test: str


CONTROLS = {
    "declared size": Control(
        "service.http.body_limit:declared_bytes",
        lambda _scope: 0,
        f"{CATALOGUE}/test_requests.py::test_057_an_upload_of_100_mb_is_refused_before_it_is_read",
    ),
    "gone clients": Control(
        "service.http.workers:done_while_connected",
        until_done,
        "tests/api/test_limits_http.py::test_065_a_search_whose_client_has_gone_is_never_begun",
    ),
    "fair shares": Control(
        "service.http.admission:FairShare.has_room",
        fits,
        "tests/api/test_access_http.py::test_085_a_client_that_asks_for_all_does_not_shut_out_another",
    ),
    "fixed labels": Control(
        "service.http.access_log:RouteTable.find",
        path_as_label,
        f"{CATALOGUE}/test_requests.py::test_073_any_number_of_unknown_addresses_makes_no_new_series",
    ),
    "memory given back": Control(
        "service.http.server:tune_interpreter",
        nothing,
        f"{CATALOGUE}/test_pictures.py::test_a_picture_is_found_or_refused_as_the_catalogue_says"
        "[011 as many pixels as may be, again]",
    ),
    "checksums": Control(
        "model.storage:FileRecord.problem",
        nothing,
        f"{INDEX}a_bad_version_is_refused_with_its_code_and_the_server_stands[095 a flipped bit]",
    ),
    "room for an index": Control(
        "service.reloader:available_bytes",
        lambda: 1 << 60,
        f"{INDEX}110_a_version_that_does_not_fit_into_memory_is_refused_before_it_is_read",
    ),
}
"""Name of a guard -> its control: a public name, and a test that fails without it."""


def take_the_guard_away() -> None:
    """Removes from this process the guard that the variable names; none when it is unset."""
    if VARIABLE not in os.environ:
        return
    control = CONTROLS[os.environ[VARIABLE]]
    module, _, name = control.replaced.partition(":")
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
