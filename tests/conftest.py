"""Markers by folder, and the fixtures that all tests share: models, galleries, indexes, a server process.

`fake_*` is the fake runtime. `shipped_*` is the ResNet-18 that ships, in int8, on OpenVINO. `real_*` and `int8_*` are
made with torch, so tests that use them are marked "torch". `real_index` and `server` are of the shipped model.
"""

import importlib.util
import os
import re
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
from model.embedder import Embedder, find_model
from model.storage import FileRecord
from service.cli import main as cli
from service.cli import output
from tests.support.app import AppClient, running_app
from tests.support.made_once import made_once
from tests.support.milvus import MilvusServer
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import Server, running_server

# Whoever started this may have told its children to ignore these, and so the servers and builds of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parent.parent
CARS = ROOT.parent / "shared" / "cars"

MARKED_FOLDERS = {"e2e": ["e2e"], "deploy": ["deploy"], "soak": ["soak"], "soak/fuzz": ["fuzz"]}
"""Folder of tests/ -> the markers that all of its tests have."""

FULL_SET = (
    "atheris",
    "matplotlib",
    "nbclient",
    "pip_audit",
    "playwright",
    "pymilvus",
    "pyvista",
    "ray",
    "schemathesis",
    "torch",
)
"""Packages that `make test` does not install and `make test-all` does."""

MISSING = [name for name in FULL_SET if importlib.util.find_spec(name) is None]
NEEDS_FULL_SET = re.compile(r"^pytestmark = .*\bmark\.(slow|torch|engines)\b", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-full-set", action="store_true", help=f"fail without {', '.join(FULL_SET)}")


def pytest_configure(config: pytest.Config) -> None:
    if MISSING and config.getoption("--require-full-set"):
        raise pytest.UsageError(f"not installed: {', '.join(MISSING)}; make test-all installs them")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """In the slim set a module that is marked as a whole is not imported: its imports would fail."""
    if not MISSING or collection_path.suffix != ".py":
        return None
    return bool(NEEDS_FULL_SET.search(collection_path.read_text(encoding="utf-8"))) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by their folder, and those that use the model made with torch."""
    for item in items:
        for folder, markers in MARKED_FOLDERS.items():
            if item.path.is_relative_to(ROOT / "tests" / folder):
                for marker in markers:
                    item.add_marker(marker)
        if "real_model" in getattr(item, "fixturenames", ()):
            item.add_marker("torch")
        if MISSING and item.get_closest_marker("torch"):
            item.add_marker(pytest.mark.skip(reason="needs the full set: make test-all"))


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
    """A real ResNet-18 with random weights and crops of 64 pixels, exported to OpenVINO in fp32; read only."""
    return made_once("resnet18", lambda directory: write_real_model(directory, tmp_path_factory.mktemp("parity")))


@pytest.fixture(scope="session")
def real_embedder(real_model: Path) -> Embedder:
    """`real_model` in OpenVINO."""
    return Embedder.load(real_model, "openvino")


@pytest.fixture(scope="session")
def int8_model(tmp_path_factory: pytest.TempPathFactory, real_model: Path) -> Path:
    """`real_model` with an int8 graph beside the one in fp32; read only."""

    def make(directory: Path) -> None:
        from model.export.openvino import export

        shutil.copytree(real_model, directory)
        folder = tmp_path_factory.mktemp("calibration")
        sets = [write_gallery(folder / "rendered", 3, 4, first_kind=20), write_gallery(folder / "real", 2, 2, 30)]
        export(directory, write_gallery(folder / "parity", classes=4, photos=4), precision="int8", calibration=sets)

    return made_once("resnet18-int8", make)


@pytest.fixture(scope="session")
def int8_embedder(int8_model: Path) -> Embedder:
    """`int8_model` in int8."""
    return Embedder.load(int8_model, "openvino")


@pytest.fixture(scope="session")
def shipped_model() -> Path:
    """The ResNet-18 that ships."""
    return find_model("resnet18")


@pytest.fixture(scope="session")
def shipped_embedder(shipped_model: Path) -> Embedder:
    """`shipped_model` in OpenVINO, in int8."""
    return Embedder.load(shipped_model, "openvino")


@pytest.fixture(scope="session")
def fake_index(tmp_path_factory: pytest.TempPathFactory, gallery: Path, fake_embedder: Embedder) -> IndexDirectory:
    """`gallery` indexed without a network; read only."""
    index = IndexDirectory(tmp_path_factory.mktemp("fake-index"))
    build_index(gallery, index, fake_embedder)
    return index


@pytest.fixture(scope="session")
def real_index(tmp_path_factory: pytest.TempPathFactory, gallery: Path, shipped_embedder: Embedder) -> IndexDirectory:
    """`gallery` indexed with the shipped model; read only."""
    index = IndexDirectory(tmp_path_factory.mktemp("index"))
    build_index(gallery, index, shipped_embedder)
    return index


@pytest.fixture(scope="session")
def api_client(fake_index: IndexDirectory, gallery: Path) -> Iterator[AppClient]:
    """The application in this process over `fake_index`, for tests that change nothing in it."""
    with running_app(fake_index.root, datasets={"demo": gallery}) as client:
        yield client


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, real_index: IndexDirectory, gallery: Path) -> Iterator[Server]:
    """A server process over `real_index`, for tests of bytes on the wire that change nothing in it."""
    log = tmp_path_factory.mktemp("server") / "log"
    with running_server(real_index.root, log, DATASETS=f'{{"demo": "{gallery}"}}') as running:
        yield running


Printed = subprocess.CompletedProcess[str]


@pytest.fixture
def carsearch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Printed]:
    """`carsearch ...` in this process, which has everything imported already."""

    def run(*arguments: str | Path) -> Printed:
        for console in (output.out, output.err):
            monkeypatch.setattr(console, "width", 200)  # pytest-xdist sets COLUMNS, which Rich reads once
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


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a Milvus in a file."""
    return str(tmp_path_factory.mktemp("milvus") / "lite.db")


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A Milvus server that may be killed, and is started again by the test that does."""
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def milvus_server(milvus: MilvusServer) -> str:
    """The address of a Milvus server."""
    return milvus.address
