"""Fixtures: small models, galleries and indexes made once a run, and the real photos when they are at hand."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.card import GOLDEN_NAME, WEIGHTS_NAME, Card, InputSpec
from model.embedder import Embedder
from model.storage import FileRecord
from service.cli import main as cli
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import Server, running_server

# Whoever started this may have told its children to ignore these, and so the servers and builds of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.pop("COLUMNS", None)  # Rich would keep it for good, whatever a test says later

CARS = Path(__file__).resolve().parent.parent.parent / "shared" / "cars"


LONG = ("test_benchmark_commands.py", "test_readme.py", "test_small.py", "test_performance.py")
"""Files that take long and all the cores. Of two processes neither shall be left with one of them at the end, and
test_guards.py, which waits for what must not happen, shall not run beside them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, everything else in its order."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CARSEARCH_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def cars() -> Path:
    """Real photos that lie beside a developer's checkout; without them the test is skipped, visibly."""
    if not (CARS / "val").is_dir():
        pytest.skip("the real photos (../shared/cars) are not here")
    return CARS


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of four photos; read only."""
    return write_gallery(tmp_path_factory.mktemp("gallery"))


def write_fake_model(directory: Path, dim: int = 64, crop: int = 32) -> Path:
    """A model artifact for the runtime "fake"; its weights are a file that nobody reads."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / WEIGHTS_NAME).write_bytes(f"no weights, {dim} dimensions".encode())
    (directory / GOLDEN_NAME).write_bytes(car_photo())
    files = {name: FileRecord.of(directory / name) for name in (WEIGHTS_NAME, GOLDEN_NAME)}
    Card("fake", "fake", dim, InputSpec(resize=crop, crop=crop), files).save(directory)
    return directory


@pytest.fixture(scope="session")
def fake_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory for the runtime "fake"."""
    return write_fake_model(tmp_path_factory.mktemp("fake-model"))


@pytest.fixture(scope="session")
def fake_embedder(fake_model: Path) -> Embedder:
    """An embedder without a network."""
    return Embedder.load(fake_model, "fake")


def write_real_model(directory: Path, parity: Path, backbone: str = "resnet18") -> Path:
    """A real network with random weights and crops of 64 pixels, exported to OpenVINO; `parity` is for its photos."""
    import torch

    from model.artifact import create_artifact
    from model.export.openvino import export
    from model.network.embedding_net import EmbeddingNetwork

    torch.manual_seed(0)
    create_artifact(EmbeddingNetwork(backbone, InputSpec(resize=72, crop=64)), directory, "tiny", {})
    export(directory, write_gallery(parity, classes=4, photos=4))
    return directory


@pytest.fixture(scope="session")
def real_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real ResNet-18 with random weights and crops of 64 pixels, exported to OpenVINO."""
    return write_real_model(tmp_path_factory.mktemp("real-model"), tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="session")
def int8_model(tmp_path_factory: pytest.TempPathFactory, real_model: Path) -> Path:
    """`real_model` with an int8 graph beside the one in fp32."""
    from model.export.openvino import export

    directory = Path(shutil.copytree(real_model, tmp_path_factory.mktemp("int8") / "model"))
    folder = tmp_path_factory.mktemp("calibration")
    sets = [write_gallery(folder / "rendered", 3, 4, first_kind=20), write_gallery(folder / "real", 2, 2, 30)]
    export(directory, write_gallery(folder / "parity", classes=4, photos=4), precision="int8", calibration=sets)
    return directory


@pytest.fixture(scope="session")
def int8_embedder(int8_model: Path) -> Embedder:
    """The real network in int8."""
    return Embedder.load(int8_model, "openvino")


@pytest.fixture(scope="session")
def real_embedder(real_model: Path) -> Embedder:
    """The real network in OpenVINO."""
    return Embedder.load(real_model, "openvino")


@pytest.fixture(scope="session")
def real_index(tmp_path_factory: pytest.TempPathFactory, gallery: Path, real_embedder: Embedder) -> IndexDirectory:
    """`gallery` indexed with the real network; read only."""
    index = IndexDirectory(tmp_path_factory.mktemp("index"))
    build_index(gallery, index, real_embedder)
    return index


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory, gallery: Path) -> Iterator[Server]:
    """A real server process over `real_index`, for tests that change nothing in it."""
    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(real_index.root, log, DATASETS=f'{{"demo": "{gallery}"}}') as running:
        yield running


Printed = subprocess.CompletedProcess[str]


@pytest.fixture
def carsearch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Printed]:
    """`carsearch ...` in this process, which has everything imported already."""

    def run(*arguments: str | Path) -> Printed:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["carsearch", *map(str, arguments)])
        capsys.readouterr()
        status: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code or 0
        assert isinstance(status, int)
        return subprocess.CompletedProcess(sys.argv, status, *capsys.readouterr())

    return run
