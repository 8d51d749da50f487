"""The demo's gallery: rendered photos of cars that no shipped network was trained on, and photos to search with.

    gallery/<class>/<photo>.jpg   what is indexed
    queries/<number>.jpg          what is searched: other photos, of classes that the gallery has
    contents.json                 size and sha256 of every file, which class each query shows, how all was rendered

`python -m bench gallery` makes it, from a checkout.
"""

import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from model.errors import DataInvalid
from model.storage import read_json

CONTENTS_NAME = "contents.json"
PHOTOS_FOLDER = "gallery"


@dataclass(frozen=True, slots=True)
class Query:
    """A photo to search with: its path in the gallery's directory, its class, and its name in the benchmark."""

    file: str
    label: str
    photo: str


@dataclass(frozen=True, slots=True)
class DemoGallery:
    """Where the photos and the queries are."""

    directory: Path
    queries: list[Query]

    @property
    def photos(self) -> Path:
        """The class folders."""
        return self.directory / PHOTOS_FOLDER

    @classmethod
    def load(cls, directory: Path | None = None) -> Self:
        """Reads what is in a gallery, by default in the one that ships; raises DataInvalid."""
        directory = directory or shipped_directory()
        contents = read_json(directory / CONTENTS_NAME, DataInvalid)
        return cls(directory, [Query(**query) for query in contents["queries"]])


def shipped_directory() -> Path:
    """The folder of the shipped gallery."""
    return Path(str(importlib.resources.files("service.demo"))) / "data"
