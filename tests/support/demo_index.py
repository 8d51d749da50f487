"""A small index of the model that ships, for whoever starts a server without pytest's fixtures."""

import shutil
from pathlib import Path

import service
from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder, find_model

GALLERY = Path(service.__file__).parent / "demo" / "data" / "gallery"


def demo_index(folder: Path, classes: int = 4) -> IndexDirectory:
    """Indexes the first classes of the demo's gallery below a folder."""
    gallery = folder / "gallery"
    for source in sorted(GALLERY.iterdir())[:classes]:
        shutil.copytree(source, gallery / source.name)
    index = IndexDirectory(folder / "index")
    build_index(gallery, index, Embedder.load(find_model("resnet18"), "openvino"))
    return index
