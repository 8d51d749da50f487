"""Somebody's own model.py, indexer.py or service.py that hides ours: one sentence that names it, and no traceback."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.servers import clean_environment
from tests.unit.test_layout import ROOT

pytestmark = pytest.mark.e2e

NAMES = ("model", "indexer", "service")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `carsearch` as pip writes it."""
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["carsearch"]
    module, _, function = entry.partition(":")
    path = tmp_path_factory.mktemp("bin") / "carsearch"
    path.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return path


def run(*arguments: str | Path, cwd: Path, path: tuple[Path, ...]) -> "subprocess.CompletedProcess[str]":
    """Runs Python in a folder with a PYTHONPATH."""
    environment = {**clean_environment(), "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def sentence(hiding: Path, name: str) -> str:
    return (
        f'{hiding} hides the package "{name}" of carsearch; rename it, or leave its folder out of PYTHONPATH and run '
        "from another folder."
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_command_names_the_file_that_hides_a_package(name: str, script: Path, tmp_path: Path) -> None:
    hiding = tmp_path / f"{name}.py"
    hiding.write_text("raise RuntimeError('nobody may run this')\n")
    ways: list[tuple[str | Path, ...]] = [(script,), ("-m", "carsearch")]
    for way in ways:
        printed = run(*way, "version", cwd=tmp_path, path=(tmp_path, ROOT))
        assert (printed.returncode, printed.stdout) == (1, "")
        assert printed.stderr == f"error: {sentence(hiding, name)}\n"
        hiding.rename(tmp_path / "mine.py")
        assert run(*way, "version", cwd=tmp_path, path=(tmp_path, ROOT)).returncode == 0
        (tmp_path / "mine.py").rename(hiding)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("statement", ["import carsearch", "from carsearch import open_index"])
def test_the_import_names_the_file_that_hides_a_package(name: str, statement: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('nobody may run this')\n")
    printed = run("-c", statement, cwd=tmp_path, path=(ROOT,))
    assert printed.returncode == 1
    assert printed.stderr.endswith(f"\nImportError: {sentence(tmp_path / f'{name}.py', name)}\n")


def test_a_script_that_has_a_package_s_name_is_told_as_well(tmp_path: Path) -> None:
    script = tmp_path / "model.py"
    script.write_text("try:\n    import carsearch\nexcept ImportError as problem:\n    print(problem)\n")
    assert run(script, cwd=tmp_path, path=(ROOT,)).stdout == f"{sentence(script, 'model')}\n"


def test_a_module_that_is_loaded_already_is_told_as_well(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("")
    code = "import sys, model; sys.path.pop(0); import carsearch"
    printed = run("-c", code, cwd=tmp_path, path=(ROOT,))
    assert printed.stderr.endswith(f"\nImportError: {sentence(tmp_path / 'model.py', 'model')}\n")


def test_a_folder_without_code_is_told_where_it_hides_a_package(tmp_path: Path) -> None:
    """As in a checkout that is installed as editable: its packages are found after every folder of the path."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "carsearch").symlink_to(ROOT / "carsearch")
    (tmp_path / "work" / "model").mkdir(parents=True)
    printed = run("-m", "carsearch", cwd=tmp_path / "work", path=(tmp_path / "checkout",))
    assert printed.returncode == 1
    assert printed.stderr == f"error: {sentence(tmp_path / 'work' / 'model', 'model')}\n"
