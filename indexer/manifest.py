"""The manifest of an index version: what the version says of itself, and the names of its files."""

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Self, get_origin

from indexer.stores.precision import Storage, storage_of
from model.errors import IndexInvalid
from model.storage import FileRecord, read_json

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.faiss"
ITEMS_NAME = "items.sqlite"
SKIPPED_NAME = "skipped.json"
EMBEDDINGS_NAME = "embeddings.f32"
CLASSES_NAME = "class_weights.f32"
CALIBRATION_NAME = "calibration.json"
CLASS_STATISTICS_NAME = "class_statistics.f32"
SEQUENCE = "sequence"
"""Key of `gallery`: see `Manifest.sequence`."""

MOST = 1 << 20
"""Of lists or candidates, far above what is made."""

FOR_DECISIONS = {CLASSES_NAME, CALIBRATION_NAME}
"""Files that a version from before there were decisions lacks."""

FOR_CHANGES = FOR_DECISIONS | {CLASS_STATISTICS_NAME}
"""Without the last of them, classes do not take in photos that were put and deleted since."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of one version; `files` maps the name of every other file to its size and hash."""

    id: str
    created: str
    dim: int
    count: int
    metric: str
    index_recipe: dict[str, Any]
    model_sha256: str
    model_name: str
    embedding_id: str
    preprocessing_sha256: str
    content_sha256: str
    gallery: dict[str, Any]
    files: dict[str, FileRecord]

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Reads a version's manifest; raises IndexInvalid when it is missing, damaged or of another schema."""
        value = read_json(directory / MANIFEST_NAME, IndexInvalid)
        schema = value.pop("schema_version", None)
        if schema != SCHEMA_VERSION:
            raise IndexInvalid(f"{directory} has the schema {schema!r}; this version reads {SCHEMA_VERSION}.")
        try:
            files = {name: FileRecord(**record) for name, record in value.pop("files").items()}
            manifest = cls(**value, files=files)
        except (KeyError, TypeError, AttributeError) as problem:
            raise IndexInvalid(f"{directory / MANIFEST_NAME} lacks or misspells a field: {problem}.") from problem
        for field in fields(cls):
            kind: Any = get_origin(field.type) or field.type
            if not isinstance(getattr(manifest, field.name), kind):
                raise IndexInvalid(f"{directory / MANIFEST_NAME} has a {field.name} of the wrong type.")
        manifest._check(directory)
        return manifest

    @property
    def created_s(self) -> float:
        """When the version was made, in seconds since 1970."""
        return datetime.fromisoformat(self.created).timestamp()

    @property
    def sequence(self) -> int:
        """The last change of the log (`indexer.delta`) that the version holds; 0 for none."""
        return int(self.gallery.get(SEQUENCE, 0))

    @property
    def storage(self) -> Storage:
        """How the vectors are stored."""
        return storage_of(self.index_recipe)

    @property
    def recall(self) -> float | None:
        """Recall@1 against fp32, measured when the index was built; None for fp32."""
        return self.index_recipe["recall_at_1"] if self.storage.lossy else None

    @property
    def vectors_name(self) -> str:
        """The file that a search reads vectors from, or that they were given to Milvus from."""
        return EMBEDDINGS_NAME if self.storage is Storage.milvus else INDEX_NAME

    @property
    def lists(self) -> tuple[int, int, int] | None:
        """Lists, lists that a search reads, and candidates that it rescores; None where all rows are compared."""
        if self.storage is not Storage.ivf_rabitq:
            return None
        return self.index_recipe["nlist"], self.index_recipe["nprobe"], self.index_recipe["candidates"]

    def _check(self, directory: Path) -> None:
        kinds = {"root": str, "classes": int, "skipped": int}
        exclude = self.gallery.get("exclude", [])  # there, as source and class_depth, where one of the options is given
        right = isinstance(exclude, list) and all(isinstance(pattern, str) for pattern in exclude)
        right &= isinstance(self.gallery.get("class_depth"), int | None)
        right &= type(self.gallery.get(SEQUENCE, 0)) is int
        if not right or any(not isinstance(self.gallery.get(name), kind) for name, kind in kinds.items()):
            raise IndexInvalid(f"{directory / MANIFEST_NAME} has a gallery of the wrong form.")
        try:
            _ = self.created_s
        except (ValueError, OverflowError) as problem:
            raise IndexInvalid(f"{directory / MANIFEST_NAME} has no date in created.") from problem
        lossy = self.storage.lossy
        if lossy and not isinstance(self.index_recipe.get("recall_at_1"), float):
            raise IndexInvalid(f"{directory / MANIFEST_NAME} has no measured recall for its storage.")
        always = {self.vectors_name, ITEMS_NAME, SKIPPED_NAME, *([EMBEDDINGS_NAME] if lossy else [])}
        if self.files.keys() not in (always, always | FOR_DECISIONS, always | FOR_CHANGES):
            raise IndexInvalid(f"{directory} is incomplete: its manifest names {', '.join(sorted(self.files))}.")
        of_lists = {Storage.ivf_rabitq: ("nlist", "nprobe", "candidates"), Storage.milvus: ("nlist", "nprobe")}
        if self.storage in of_lists:
            numbers = [self.index_recipe.get(name) for name in of_lists[self.storage]]
            least = 0 if self.storage is Storage.milvus else 1  # Milvus compares all rows of small galleries
            if not all(isinstance(number, int) and least <= number <= MOST for number in numbers):
                raise IndexInvalid(f"{directory / MANIFEST_NAME} does not say how its lists are read.")
        vectors_bytes = self.storage.row_bytes(self.dim) * self.count
        if self.dim < 1 or not 0 <= vectors_bytes <= self.files[self.vectors_name].bytes:
            raise IndexInvalid(
                f"{directory / self.vectors_name} cannot hold {self.count} vectors of {self.dim} dimensions."
            )
        if self.metric != "inner_product":
            raise IndexInvalid(f"{directory} was built for the metric {self.metric!r}, not inner_product.")
