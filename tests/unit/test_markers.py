"""Every test is run by `make test` or by the rest of `make test-all`."""

import re
import tomllib

from tests.conftest import ROOT


def test_the_makefile_knows_every_marker() -> None:
    """`make test` runs what has none of them, `make test-rest` what has one, `make test-engines` what it leaves out."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (marked,) = re.findall(r"^MARKED := (.+)$", makefile, re.MULTILINE)
    assert marked.split(" or ") == [marker.partition(":")[0] for marker in options["markers"]]
    assert re.findall(r'-m "(.*?)"', makefile) == ["not ($(MARKED))", "($(MARKED)) and not engines"]
    assert re.findall(r"-m engines -k (.*)$", makefile, re.MULTILINE) == ["milvus", '"not milvus"']


def test_no_module_of_make_test_skips_itself_where_a_package_is_missing() -> None:
    """Without the package it would not run, and with it nobody would run it: it has to be marked instead."""
    modules = [path for folder in ("unit", "api") for path in (ROOT / "tests" / folder).rglob("*.py")]
    skipping = "pytest.importor" + "skip"
    assert [path.name for path in modules if skipping in path.read_text(encoding="utf-8")] == []
