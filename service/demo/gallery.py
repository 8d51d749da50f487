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
from model.storage import FileRecord, read_json

CONTENTS_NAME = "contents.json"
PHOTOS_FOLDER = "gallery"
QUERIES_FOLDER = "queries"


class DemoGalleryInvalid(DataInvalid):
    """The shipped gallery is missing or damaged."""

    code = "demo_gallery_invalid"


@dataclass(frozen=True, slots=True)
class Query:
    """A photo to search with: its path in the gallery's directory, its class, and its name in the benchmark."""

    file: str
    label: str
    photo: str


@dataclass(frozen=True, slots=True)
class DemoGallery:
    """A gallery whose files have all been verified."""

    directory: Path
    queries: list[Query]

    @property
    def photos(self) -> Path:
        """The class folders."""
        return self.directory / PHOTOS_FOLDER

    @classmethod
    def load(cls, directory: Path | None = None) -> Self:
        """Reads a gallery, by default the one that ships, and checks every file; raises DemoGalleryInvalid."""
        directory = directory or shipped_directory()
        if not (directory / CONTENTS_NAME).is_file():
            raise DemoGalleryInvalid(f"There is no demo gallery in {directory}; install carsearch again.")
        contents = read_json(directory / CONTENTS_NAME, DemoGalleryInvalid)
        try:
            files = {name: FileRecord(**record) for name, record in contents["files"].items()}
            queries = [Query(**query) for query in contents["queries"]]
        except (KeyError, TypeError, AttributeError) as problem:
            raise DemoGalleryInvalid(
                f"{directory / CONTENTS_NAME} lacks or misspells a field: {problem}; install carsearch again."
            ) from problem
        for name, record in files.items():
            wrong = record.problem(directory / name)
            if wrong:
                raise DemoGalleryInvalid(
                    f"The demo gallery in {directory} is damaged: {name} {wrong}; install carsearch again."
                )
        return cls(directory, queries)


def shipped_directory() -> Path:
    """The folder of the shipped gallery."""
    return Path(str(importlib.resources.files("service.demo"))) / "data"
