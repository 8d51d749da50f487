"""Photos that lie in object storage, or in tar and Parquet shards: found and read through fsspec.

s3://bucket/photos            a folder, with the rules of a local one
s3://bucket/train-*.tar       shards; the names of their members have the same rules
shards/*.parquet              shards; the columns `image`, and where they are there `class` or `label`, and `id`
"""

import posixpath
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from model.dataset import MAX_FILE_BYTES, SIDE_FILE, Item, ItemList, checked, refuse_duplicate_ids
from model.errors import DataInvalid, FileUnreadable, missing_dependency
from model.folders import FEW_CLASSES, doubt_about_classes, is_excluded, is_litter, is_side_file, label_of
from model.names import ids_of, normalise_label
from model.parallel import decode_pool, map_in_order
from model.spreadsheet import CLASS_COLUMNS

if TYPE_CHECKING:
    import pyarrow.parquet as pq

IMAGE_COLUMN = "image"
SHARDS = (".tar", ".parquet")
_reading = threading.Lock()


@dataclass(frozen=True, slots=True)
class StoredPhoto(Item):
    """A file of a storage, or in a shard the `size_bytes` from `start` on. `path` is relative to the set.

    `stamp` changes when the content does.
    """

    url: str = ""
    stamp: str = ""
    size_bytes: int = 0
    start: int | None = None

    @property
    def file(self) -> None:
        """It lies elsewhere."""

    @property
    def place(self) -> tuple[str, int, int]:
        """Orders photos as they lie in shards."""
        return self.url, 0, self.start or 0

    def read(self) -> bytes:
        """The photo's bytes; raises FileUnreadable where it is gone, and OSError where the storage fails."""
        if self.size_bytes > MAX_FILE_BYTES:
            raise FileUnreadable(f"The file is larger than {MAX_FILE_BYTES >> 20} MiB.")
        if self.start is not None and not self.size_bytes:
            return b""  # S3 refuses a range of no bytes
        limits = {} if self.start is None else {"start": self.start, "end": self.start + self.size_bytes}
        files, path = _opened(self.url)
        try:
            return bytes(files.cat_file(path, **limits))
        except FileNotFoundError as problem:
            raise FileUnreadable("The file cannot be read: No such file or directory.") from problem


@dataclass(frozen=True, slots=True)
class ParquetPhoto(StoredPhoto):
    """A row of a group of rows of a Parquet file."""

    group: int = 0
    row: int = 0

    @property
    def place(self) -> tuple[str, int, int]:
        """Orders photos as they lie in shards."""
        return self.url, self.group, self.row

    def read(self) -> bytes:
        """The photo's bytes; raises FileUnreadable where the cell is empty, and OSError where the storage fails."""
        with _reading:
            photo = _group_of(self.url, self.group)[self.row].as_py()
        photo = photo.get("bytes") if isinstance(photo, dict) else photo  # as Hugging Face's datasets have it
        if not isinstance(photo, bytes):
            raise FileUnreadable(f'The column "{IMAGE_COLUMN}" has no photo in this row.')
        return photo


def is_stored(gallery: str | Path) -> bool:
    """True for a gallery that `read_stored` reads: a URL, or shards anywhere."""
    return "://" in str(gallery) or str(gallery).endswith(SHARDS)


def read_stored(gallery: str, *, class_depth: int | None = None, exclude: Sequence[str] = ()) -> ItemList:
    """Finds the photos of a storage or of shards, with the rules, ids and classes of `read_items`.

    Raises DataInvalid (and its kinds) when they cannot be found, and MissingDependency.
    """
    files, path = _opened(gallery)
    try:
        if gallery.endswith(".parquet"):
            if class_depth or exclude:
                raise DataInvalid("Parquet has no folders; leave the depth of classes and what to exclude out.")
            found = _from_parquet(files, _shards(files, path), class_depth)
        elif gallery.endswith(".tar"):
            found = _from_tars(files, _shards(files, path), class_depth, exclude)
        else:
            found = _from_folder(files, path, class_depth, exclude)
    except (OSError, tarfile.TarError) as problem:
        raise DataInvalid(f"{gallery} cannot be read: {problem}.") from problem
    refuse_duplicate_ids(found.items)
    return checked(gallery, found, FEW_CLASSES)


def _opened(url: str) -> tuple[Any, str]:
    """The file system that a URL names, and the path in it."""
    try:
        import fsspec

        files, path = fsspec.url_to_fs(url)
    except ModuleNotFoundError as problem:
        raise missing_dependency(problem) or problem from problem
    except (ImportError, ValueError) as problem:  # a protocol that is unknown, or whose package is not installed
        raise DataInvalid(f"{url} cannot be read: {problem}") from problem
    return files, path


def _shards(files: Any, path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Paths and descriptions of the files that a path or pattern names; raises FileNotFoundError for none."""
    found = files.glob(path, detail=True)
    if not found:
        raise FileNotFoundError("there is no such file")
    return sorted(found.items())


def _stamp(info: Mapping[str, Any]) -> str:
    tag = info.get("ETag") or [info.get(name) for name in ("mtime", "LastModified", "ino")]
    return f"{info['size']} {tag}"


def _from_folder(files: Any, root: str, class_depth: int | None, exclude: Sequence[str]) -> ItemList:
    found = files.find(root, detail=True)
    root = root.rstrip("/") + "/"
    by_name = {
        name: StoredPhoto("", "", Path(name), {}, files.unstrip_protocol(path), _stamp(info), info["size"])
        for path, info in found.items()
        if (name := path.removeprefix(root)) and not name.endswith("/")
    }
    return _by_names(by_name, class_depth, exclude)


def _from_tars(
    files: Any, shards: list[tuple[str, Mapping[str, Any]]], class_depth: int | None, exclude: Sequence[str]
) -> ItemList:
    def members(shard: tuple[str, Mapping[str, Any]]) -> list[tuple[str, StoredPhoto]]:
        path, info = shard
        url, stamp = files.unstrip_protocol(path), _stamp(info)
        with files.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            return [
                (name, StoredPhoto("", "", Path(name), {}, url, stamp, entry.size, entry.offset_data))
                for entry in archive
                if entry.isreg() and (name := entry.name.removeprefix("./"))
            ]

    with decode_pool() as pool:
        found = [member for shard in map_in_order(pool, members, shards) for member in shard]
    by_name = dict(found)
    if len(by_name) < len(found):
        raise DataInvalid("A name occurs twice in the shards; names of photos must be unique.")

    return _by_names(by_name, class_depth, exclude)


def _by_names(photos: Mapping[str, StoredPhoto], class_depth: int | None, exclude: Sequence[str]) -> ItemList:
    """The photos among some files, with ids and classes by their names relative to the set."""
    paths = {name: PurePosixPath(name) for name in photos}
    kept = [
        name
        for name, path in paths.items()
        if not any(map(is_litter, path.parts)) and not is_side_file(path.name) and not is_excluded(path, exclude)
    ]
    folders = [paths[name].parts[:-1] for name in kept]
    depth = 1 if class_depth is None else class_depth
    items: list[Item] = [
        replace(photos[name], id=identity, label=label_of(above, depth))
        for name, identity, above in zip(kept, ids_of(kept), folders, strict=True)
    ]
    doubt = doubt_about_classes(folders) if class_depth is None else None
    notes = (f"{SIDE_FILE} is read in a local folder only.",) if SIDE_FILE in paths else ()
    return ItemList(sorted(items, key=lambda item: item.id), [], doubt, notes)


def _from_parquet(files: Any, shards: list[tuple[str, Mapping[str, Any]]], class_depth: int | None) -> ItemList:
    items: list[Item] = []
    for path, info in shards:
        url, stamp = files.unstrip_protocol(path), _stamp(info)
        with _parquet(url) as table:
            items += _rows_of(table, posixpath.basename(path), url, stamp, labelled=class_depth != 0)
    return ItemList(sorted(items, key=lambda item: item.id), [])


def _rows_of(table: "pq.ParquetFile", shard: str, url: str, stamp: str, *, labelled: bool) -> Iterator[ParquetPhoto]:
    """The photos of a shard; without a column of ids, the id is made of the names of shard and row."""
    names = table.schema_arrow.names
    if IMAGE_COLUMN not in names:
        raise DataInvalid(f'{url} has no column "{IMAGE_COLUMN}"; it has: {", ".join(names)}.')
    class_column = next((name for name in CLASS_COLUMNS if name in names), None) if labelled else None
    number = 0
    for group in range(table.num_row_groups):
        columns = [name for name in ("id", class_column) if name in names]
        rows = table.read_row_group(group, columns=columns).to_pylist()
        for place, row in enumerate(rows or [{}] * table.metadata.row_group(group).num_rows):
            identity = row.get("id")
            identity = f"{shard}/{number:09d}" if identity is None else ids_of([str(identity)])[0]
            label = row.get(class_column)
            label = "" if label is None else normalise_label(str(label))
            yield ParquetPhoto(identity, label, Path(identity), url=url, stamp=stamp, group=group, row=place)
            number += 1


@contextmanager
def _parquet(url: str) -> Iterator["pq.ParquetFile"]:
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError as problem:
        raise missing_dependency(problem) or problem from problem
    files, path = _opened(url)
    with files.open(path, "rb") as file:
        yield pq.ParquetFile(file)


@lru_cache(maxsize=2)
def _group_of(url: str, group: int) -> Any:
    """The photos of a group of rows; two are kept, because rows are read in their order."""
    with _parquet(url) as table:
        return table.read_row_group(group, columns=[IMAGE_COLUMN]).column(0)
