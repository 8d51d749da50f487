"""Labelled sets and index directories as the tests of this folder need them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from indexer.items import GalleryItem, ItemTable
from indexer.manifest import INDEX_NAME, ITEMS_NAME
from indexer.versions import IndexDirectory
from model.types import Embeddings
from tests.support.photos import car_photo
from tests.support.servers import clean_environment
from tests.unit.test_layout import ROOT

TINY = (32, 32)


VERSION_FILES = (
    "index.faiss",
    "items.sqlite",
    "skipped.json",
    "class_weights.f32",
    "class_statistics.f32",
    "calibration.json",
)
"""Of a version in fp32, beside its manifest."""


def write_photos(root: Path, names: Iterable[str]) -> Path:
    """One tiny photo a name "class/shot.jpg"; equal names have equal content everywhere, different names different."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(car_photo(crc32(name.encode()), size=TINY))
    return root


def unit(rows: object) -> Embeddings:
    """Scales rows to length 1: (n, D) -> float32 (n, D)."""
    matrix = np.asarray(rows, np.float64)
    scaled: Embeddings = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def files_of(root: Path) -> dict[str, bytes]:
    """Every file below a directory but the lock: relative name -> content."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def items_of(index: IndexDirectory) -> dict[str, str]:
    """What the current version holds: id -> class."""
    table = ItemTable(index.path_of(index.current()) / ITEMS_NAME)
    found = {item.id: item.label for item in table.all()}
    table.close()
    return found


def content_of(index: IndexDirectory) -> tuple[bytes, list[GalleryItem]]:
    """The bytes of the current version's vectors, and its items without the stamps of their files."""
    directory = index.path_of(index.current())
    with closing(ItemTable(directory / ITEMS_NAME)) as table:
        return (directory / INDEX_NAME).read_bytes(), [replace(item, stamp=None) for item in table.all()]


def assert_clean(index: IndexDirectory) -> None:
    """Only whole versions, their models, CURRENT and the lock are there."""
    manifests = [index.verify(path.name) for path in (index.root / "versions").iterdir()]
    assert {path.name for path in (index.root / "models").iterdir()} == {one.model_sha256 for one in manifests}
    assert {path.name for path in index.root.iterdir()} == {"versions", "models", "CURRENT", ".lock"}


@dataclass(frozen=True)
class MemoryPhoto:
    """A labelled photo that lies nowhere."""

    id: str
    label: str
    data: bytes = b""

    def read(self) -> bytes:
        return self.data


@contextmanager
def ordered_builds(model: Path) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """A process that builds indexes as it is ordered (`build_until_killed`): an order in, its answer out."""
    command = [sys.executable, "-m", "tests.unit.indexer.build_until_killed", str(model)]
    environment = {**clean_environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        orders, answers = process.stdin, process.stdout

        def order(build: dict[str, Any]) -> dict[str, Any]:
            orders.write(json.dumps(build) + "\n")
            orders.flush()
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield order
