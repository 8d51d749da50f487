"""The shape of the code: which package may import which, what stays out of a slim process, and how long things are."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "model": {"model"},
    "indexer": {"indexer", "model"},
    "service": {"service", "indexer", "model"},
    "carsearch": {"carsearch", "service", "indexer", "model"},
    "bench": {"bench", "service", "indexer", "model"},
}
"""Package -> the packages of this project that it may import: model <- indexer <- service <- carsearch, bench."""

OURS = {*MAY_IMPORT, "tests"}
MAX_FUNCTION_LINES = 60


def modules() -> list[str]:
    """Every module of the packages, as a path relative to the repository."""
    return sorted(str(path.relative_to(ROOT)) for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported(path: str) -> Iterator[str]:
    """The dotted names that a module imports anywhere in it, inside functions too."""
    package = ".".join(Path(path).parent.parts)
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield importlib.util.resolve_name("." * node.level + (node.module or ""), package)


@pytest.mark.parametrize("path", modules())
def test_a_package_imports_only_those_below_it(path: str) -> None:
    ours = {name.partition(".")[0] for name in imported(path)} & OURS
    assert ours <= MAY_IMPORT[Path(path).parts[0]]


@pytest.mark.parametrize("path", modules())
def test_functions_are_short(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def heavy_packages_of(modules_to_import: str) -> set[str]:
    """Which of the heavy packages a fresh process has after importing modules."""
    heavy = {"torch", "lightning", "openvino", "onnxruntime", "faiss"}
    code = f"import sys, {modules_to_import}; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_serving_and_indexing_do_not_import_torch() -> None:
    slim = "model.dataset, model.images.decode, model.embedder, indexer.build, service.http.app, service.cli.main"
    assert heavy_packages_of(slim).isdisjoint({"torch", "lightning"})


def test_reading_data_and_decoding_photos_needs_none_of_the_heavy_packages() -> None:
    assert heavy_packages_of("model.dataset, model.images.decode, model.embedder, model.retrieval, model.card") == set()


def test_the_command_line_waits_for_none_of_the_heavy_packages() -> None:
    assert heavy_packages_of("service.cli.main, service.cli.remote, carsearch.__main__") == set()


@pytest.mark.torch
def test_training_imports_neither_the_index_nor_the_graph_runtime() -> None:
    assert heavy_packages_of("model.training.trainer") == {"torch", "lightning"}


def test_the_rule_would_notice_an_import_in_the_wrong_direction() -> None:
    assert "indexer.stores.base" in set(imported("indexer/benchmark/evaluate.py"))
    assert not {"indexer"} <= MAY_IMPORT["model"]
