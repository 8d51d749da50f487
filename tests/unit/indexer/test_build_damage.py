"""Damage and full disks: the next build replaces what is broken, and a failed write publishes nothing."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build_index
from indexer.stores.faiss import FaissStore
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from model.errors import ModelInvalid, PhotosSkipped
from tests.conftest import write_fake_model
from tests.unit.indexer.sets import VERSION_FILES, assert_clean, content_of, items_of, write_photos

NAMES = [f"{label}/{shot}.jpg" for label in "abc" for shot in range(3)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", NAMES)


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return IndexDirectory(tmp_path / "index")


@pytest.mark.parametrize("name", [*VERSION_FILES, "manifest.json"])
def test_the_next_build_replaces_a_damaged_version(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, name: str
) -> None:
    damaged = build_index(photos, index, fake_embedder)
    whole = content_of(index)
    (index.path_of(damaged.version) / name).write_bytes(b"damaged")
    healed = build_index(photos, index, fake_embedder)
    assert (healed.changed, healed.embedded) == (True, 9)
    assert healed.version == index.verify(index.current()).id != damaged.version
    assert content_of(index) == whole


@pytest.mark.parametrize("name", ["card.json", "weights.safetensors", "golden.jpg"])
def test_the_next_build_replaces_a_damaged_copy_of_the_model(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, name: str
) -> None:
    build_index(photos, index, fake_embedder)
    path = index.model_path(fake_embedder.model_sha256) / name
    path.write_bytes(b"damaged")
    build_index(photos, index, fake_embedder)
    assert path.read_bytes() == (fake_embedder.directory / name).read_bytes()
    assert_clean(index)


def test_a_model_that_was_damaged_after_loading_is_not_published(
    photos: Path, index: IndexDirectory, tmp_path: Path
) -> None:
    model = write_fake_model(tmp_path / "model")
    embedder = Embedder.load(model, "fake")
    (model / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelInvalid, match="is damaged"):
        build_index(photos, index, embedder)
    assert index.versions() == []
    write_fake_model(model)
    assert build_index(photos, index, embedder).embedded == 0
    assert_clean(index)


@pytest.mark.parametrize("content", [b"", b"\xff", b"../..", b"nobody", b"x" * 5000])
def test_the_next_build_replaces_a_current_that_names_no_version(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, content: bytes
) -> None:
    build_index(photos, index, fake_embedder)
    (index.root / CURRENT_NAME).write_bytes(content)
    build_index(photos, index, fake_embedder)
    assert list(items_of(index)) == NAMES
    assert_clean(index)


def test_unfinished_work_that_is_damaged_is_done_again(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    (photos / "a/bad.jpg").touch()
    with pytest.raises(PhotosSkipped):
        build_index(photos, index, fake_embedder, strict=True)
    (unfinished,) = (index.root / "work").glob("*/embeddings.sqlite")
    unfinished.write_bytes(b"damaged" * 1000)
    assert build_index(photos, index, fake_embedder).embedded == 9


BUILD = """
import resource, sys
from pathlib import Path
from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import CarsearchError
photos, index, model, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    build_index(Path(photos), IndexDirectory(Path(index)), Embedder.load(model, "fake"))
except CarsearchError as problem:
    sys.exit(f"{problem.code}: {problem}")
"""


@pytest.mark.parametrize("limit", [0, 4096, 12288, 12588, 20479])
def test_a_file_that_cannot_be_written_whole_publishes_nothing(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, limit: int
) -> None:
    version = build_index(photos, index, fake_embedder).version
    write_photos(photos, [f"d/{shot}.jpg" for shot in range(40)])
    arguments = [str(photos), str(index.root), str(fake_embedder.directory), str(limit)]
    answer = subprocess.run([sys.executable, "-c", BUILD, *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.startswith("index_invalid: ")
    assert str(index.root) in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert index.verify(index.current()).id == version
    assert index.versions() == [version]
    assert build_index(photos, index, fake_embedder).photos == 49
    assert_clean(index)


def test_vectors_that_cannot_be_written_whole_are_an_error(tmp_path: Path) -> None:
    # SIGXFSZ is ignored by Python, so that a write past the limit fails as it would on a full disk.
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    store = FaissStore.create(np.eye(32, dtype=np.float32))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            store.write(tmp_path / "index.faiss")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
