"""What is shipped agrees with itself: versions, constraints, changelog, packages."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_PINNED = {"faiss-gpu-cuvs"}  # needs a GPU machine's driver; images for GPUs pin it with their CUDA


def name_of(requirement: str) -> str:
    """The package that a requirement names, normalised."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def constraints() -> dict[str, str]:
    """Package -> the version that CI and images install."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {name_of(line): line.partition("==")[2] for line in lines}


def test_everything_the_project_asks_for_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"].values()
    asked = {name_of(requirement) for group in (PROJECT["dependencies"], *extras) for requirement in group}
    assert asked - NOT_PINNED <= constraints().keys()


def test_constraints_are_names_and_versions_and_nothing_else() -> None:
    assert all(re.fullmatch(r"[\d.]+(post\d+)?", version) for version in constraints().values())


def test_the_slim_install_asks_for_no_torch() -> None:
    slim = {name_of(requirement) for requirement in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cpu"]}
    assert slim.isdisjoint({"torch", "torchvision", "lightning"})


def test_the_changelog_speaks_of_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout by the tools at hand."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: building leaves files behind, and takes what an earlier build left
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "demo")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_module_and_no_test(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".py", "py.typed"))}
    packages = ("model", "indexer", "service", "bench")
    sources = {str(path.relative_to(ROOT)) for package in packages for path in (ROOT / package).rglob("*.py")}
    assert packed == sources | {f"{package}/py.typed" for package in packages}
