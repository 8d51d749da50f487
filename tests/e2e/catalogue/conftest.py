"""One server for the catalogue: the model that ships over a gallery that holds the plain twins of odd pictures."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder, find_model
from tests.e2e.catalogue.pictures import QUERY, twins
from tests.e2e.catalogue.standing import Standing
from tests.support.servers import running_server


@pytest.fixture(scope="session")
def catalogue_index(tmp_path_factory: pytest.TempPathFactory) -> IndexDirectory:
    """Some photos of the demo's gallery, and the twins; read only."""
    gallery = tmp_path_factory.mktemp("catalogue-gallery")
    for folder in sorted((QUERY.parent.parent / "gallery").iterdir())[:8]:
        shutil.copytree(folder, gallery / folder.name)
    for name, image in twins().items():
        (gallery / name).mkdir()
        image.save(gallery / name / f"{name}.png")
    index = IndexDirectory(tmp_path_factory.mktemp("catalogue") / "index")
    build_index(gallery, index, Embedder.load(find_model("resnet18"), "openvino"))
    return index


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, catalogue_index: IndexDirectory) -> Iterator[Standing]:
    """A server for the cases of one module; at the module's end its memory must be what it was."""
    folder: Path = tmp_path_factory.mktemp("standing")
    (folder / "spool").mkdir()
    settings = {"SPOOL_DIR": str(folder / "spool"), "SEARCH_THREADS": "2"}
    with running_server(catalogue_index.root, folder / "log", True, **settings) as server:
        standing = Standing(server, folder / "spool")
        yield standing
        standing.assert_memory()
