"""Each guard has a test that fails when the guard is taken away: the catalogue would notice."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.support.without import GUARDS, VARIABLE
from tests.unit.test_layout import ROOT

PICTURES = "tests/e2e/catalogue/test_pictures.py::test_a_picture_is_found_or_refused_as_the_catalogue_says"
REQUESTS = "tests/e2e/catalogue/test_requests.py::test_"
SETS = "tests/e2e/catalogue/test_sets.py::test_"
A_SET = f"{SETS}a_set_is_evaluated_or_refused_and_touches_no_disk"
SLOW = "tests/api/test_slow_http.py::test_"
INDEX = "tests/e2e/catalogue/test_index.py::test_"
BAD_INDEX = f"{INDEX}a_bad_version_is_refused_with_its_code_and_the_server_stands"
ACCESS = "tests/api/test_access_http.py::test_"
PATIENCE_S = 16
"""What is waited for in vain is not waited for long."""

# Several runs at once: guards of one run do not get in the way of each other's tests, and most of the time is waiting.
RUNS = {
    "pictures, requests, sets": {
        "orientation": f"{PICTURES}[016 orientation 6]",
        "pixel limit": f"{PICTURES}[012 more pixels than may be]",
        "memory given back": f"{PICTURES}[011 as many pixels as may be, again]",
        "declared size": f"{REQUESTS}057_an_upload_of_100_mb_is_refused_before_it_is_read",
        "counted size": f"{REQUESTS}058_an_upload_of_100_mb_in_chunks_is_cut_off_at_the_limit",
        "own validation errors": f"{REQUESTS}a_k_that_is_none[069 k=0]",
        "archive ratio": f"{A_SET}[136 300 MB of zeros in one file]",
        "archive paths": f"{A_SET}[139 ../x.jpg]",
        "archive links": f"{SETS}140_a_link_in_a_zip_is_named_and_never_followed[a photo]",
        "archive names": f"{SETS}a_korean_class_is_one_class_however_it_is_spelled[143 CP949]",
    },
    "formats, slow clients": {
        "formats": f"{PICTURES}[013 GIF of 2 frames]",
        "fixed labels": f"{REQUESTS}073_any_number_of_unknown_addresses_makes_no_new_series",
        "upload rate": f"{SLOW}063_an_upload_below_the_lowest_rate_is_cut_off_before_its_deadline",
        "head deadline": f"{SLOW}062_a_head_that_does_not_come_ends_the_connection[P]",
        "write deadline": f"{SLOW}064_who_does_not_read_is_broken_off",
    },
    "access, indexes": {
        "keys": f"{ACCESS}067_an_upload_without_a_key_is_refused_before_it_is_sent",
        "shares": f"{ACCESS}085_a_client_that_asks_for_all_does_not_shut_out_another",
        "gone clients": "tests/api/test_limits_http.py::test_065_a_search_whose_client_has_gone_is_never_begun",
        "room for an index": f"{INDEX}110_a_version_that_does_not_fit_into_memory_is_refused_before_it_is_read",
        "checksums": f"{BAD_INDEX}[095 a flipped bit]",
    },
}
UNTOUCHED = (
    f"{PICTURES}[001 progressive JPEG]",
    f"{PICTURES}[011 as many pixels as may be, first]",
    f"{REQUESTS}071_parameters_that_nobody_knows_are_passed_over",
    f"{A_SET}[149 an empty zip]",
)
"""What no guard has to do with passes all the same: a server that answers nothing would prove nothing."""


RUN_S = 600
pytestmark = pytest.mark.timeout(RUN_S + 60)


def begun(guards: dict[str, str], report: Path) -> "subprocess.Popen[str]":
    """Runs the tests of some guards against servers that lack them."""
    # Module by module, each with one server; what a module's server holds at its end is told at its last test.
    nodes = sorted([*UNTOUCHED, *guards.values()], key=lambda node: node.partition("::")[0])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {**os.environ, VARIABLE: ",".join(guards), "PATIENCE_S": str(PATIENCE_S)}
    return subprocess.Popen(
        [*command, *nodes],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def passed(report: Path) -> dict[str, bool]:
    """The tests of a report, by their node ids, and whether all went well with each."""
    found: dict[str, bool] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # pytest wrote it
        node = f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}"
        failed = any(child.tag in ("failure", "error") for child in case)
        found[node] = found.get(node, True) and not failed
    return found


def test_every_guard_is_taken_away_once() -> None:
    assert sorted(guard for guards in RUNS.values() for guard in guards) == sorted(GUARDS)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bool]]:
    """Of each run, which tests passed."""
    folder = tmp_path_factory.mktemp("without")
    reports = {run: folder / f"{number}.xml" for number, run in enumerate(RUNS)}
    processes = {run: begun(RUNS[run], report) for run, report in reports.items()}
    told = {run: process.communicate(timeout=RUN_S)[0] for run, process in processes.items()}
    for run, process in processes.items():
        assert process.returncode == 1, told[run]  # some tests failed, and nothing worse
    return {run: passed(report) for run, report in reports.items()}


@pytest.mark.parametrize(("run", "guard"), [(run, guard) for run, guards in RUNS.items() for guard in guards])
def test_without_its_guard_a_test_fails(outcomes: dict[str, dict[str, bool]], run: str, guard: str) -> None:
    assert outcomes[run][RUNS[run][guard]] is False


@pytest.mark.parametrize("run", RUNS)
def test_what_a_guard_has_nothing_to_do_with_goes_on(outcomes: dict[str, dict[str, bool]], run: str) -> None:
    assert {node: outcomes[run][node] for node in UNTOUCHED} == dict.fromkeys(UNTOUCHED, True)
