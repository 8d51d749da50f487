"""The public Python API of carsearch, described in docs/python.md. A name is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING

from carsearch.hidden_packages import refuse_hidden_packages

__all__ = ["CarsearchError", "Embedder", "build_index", "evaluate", "open_index"]

refuse_hidden_packages()

if TYPE_CHECKING:
    from indexer.benchmark.evaluate import evaluate
    from indexer.build import build_index
    from model.embedder import Embedder
    from model.errors import CarsearchError
    from service.engine import open_index
else:
    MODULES = {
        "CarsearchError": "model.errors",
        "Embedder": "model.embedder",
        "build_index": "indexer.build",
        "evaluate": "indexer.benchmark.evaluate",
        "open_index": "service.engine",
    }

    def __getattr__(name):
        if name not in MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(MODULES[name]), name)
