"""Labelled photos: class folders or a CSV manifest -> items, and class-disjoint splits of them."""

import csv
import hashlib
import io
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

from model.errors import CarsearchError, DataInvalid, DuplicateId, EmptyGallery, FileUnreadable, ManifestInvalid

T = TypeVar("T")
MAX_FILE_BYTES = 256 << 20
# Files that operating systems and archivers leave behind.
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


class Photo(Protocol):
    """A labelled photo, wherever its bytes are: `id` is unique in its set, `label` is its class."""

    @property
    def id(self) -> str: ...

    @property
    def label(self) -> str: ...

    def read(self) -> bytes:
        """The photo's bytes; raises FileUnreadable."""
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """A labelled photo on disk."""

    id: str
    label: str
    path: Path

    def read(self) -> bytes:
        return read_file(self.path)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry of a set that is not used: its `name` for people, a stable `code`, and one sentence why."""

    name: str
    code: str
    message: str

    @classmethod
    def because(cls, name: str, problem: CarsearchError) -> "Skipped":
        return cls(name=name, code=problem.code, message=str(problem))


@dataclass(frozen=True, slots=True)
class ItemList:
    """The items of a set, ordered by id, and its entries that are not used."""

    items: list[Item]
    skipped: list[Skipped]


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most `MAX_FILE_BYTES`.

    Raises FileUnreadable with a sentence that leaves out the path, because reports repeat it to clients.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block, and a device has no end
            raise FileUnreadable("The file is a folder, a pipe or a device.")
        if status.st_size > MAX_FILE_BYTES:
            raise FileUnreadable(f"The file is larger than {MAX_FILE_BYTES >> 20} MiB.")
        return path.read_bytes()
    except OSError as problem:
        raise FileUnreadable(f"The file cannot be read: {problem.strerror or problem}.") from problem
    except ValueError as problem:  # a NUL character, which a manifest may contain
        raise FileUnreadable(f"The file cannot be read: {problem}.") from problem


def normalise_label(name: str) -> str:
    """A class name in Unicode NFC, so that two names that look equal are equal."""
    return unicodedata.normalize("NFC", name)


def id_of(relative: str | bytes) -> str:
    """The id of a photo: its path relative to the set, percent-encoded from the raw bytes ("/" stays, "%" is "%25").

    >>> id_of("아반떼/100%.jpg")
    '%EC%95%84%EB%B0%98%EB%96%BC/100%25.jpg'
    """
    return quote(os.fsencode(relative), safe="/")


def printable(name: str) -> str:
    """A file or class name as text that can be stored and printed, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_items(source: Path) -> ItemList:
    """Reads a set of labelled photos: a directory of class folders, or a CSV manifest with `path,class[,id]`.

    In a directory the first folder names the class, and photos may be at any depth below it. Hidden files and litter
    are ignored. Every other regular file counts as a photo until it is decoded, whatever its name. In a manifest,
    paths are relative to the manifest.

    Raises DataInvalid (and its kinds) when the set as a whole cannot be used.
    """
    try:
        mode = source.stat().st_mode
    except OSError as problem:
        raise DataInvalid(f"{source} cannot be read: {problem.strerror}.") from problem
    found = _from_folders(source) if stat.S_ISDIR(mode) else _from_manifest(source)
    if not found.items:
        raise EmptyGallery(f"There are no photos in {source}; it needs one folder a class with photos in it.")
    return found


def spread(items: Sequence[T], most: int) -> list[T]:
    """Up to `most` of some items, at even steps.

    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def read_unlabelled(source: Path) -> ItemList:
    """Reads every photo below a directory, at any depth; the label of each is empty.

    Raises DataInvalid (and its kinds) when there is none.
    """
    skipped: list[Skipped] = []
    items = [Item(id_of(os.path.relpath(path, source)), "", path) for path in _walk(source, skipped)]
    if not items:
        raise EmptyGallery(f"There are no photos in {source}.")
    return ItemList(sorted(items, key=lambda item: item.id), skipped)


def _from_folders(root: Path) -> ItemList:
    items: list[Item] = []
    skipped: list[Skipped] = []
    for path in _walk(root, skipped):
        relative = os.path.relpath(path, root)
        folder, separator, _ = relative.partition(os.sep)
        if not separator:
            skipped.append(Skipped(printable(relative), "no_class", "The file lies in no class folder."))
            continue
        items.append(Item(id=id_of(relative), label=normalise_label(printable(folder)), path=path))
    return ItemList(sorted(items, key=lambda item: item.id), skipped)


def _walk(root: Path, skipped: list[Skipped]) -> Iterator[Path]:
    def unreadable(problem: OSError) -> None:
        name = printable(os.path.relpath(problem.filename, root))
        skipped.append(Skipped(name, FileUnreadable.code, f"The folder cannot be read: {problem.strerror}."))

    # Links to folders are not followed: a loop would never end.
    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not _is_litter(name))
        for name in folders:
            if Path(folder, name).is_symlink():
                relative = os.path.relpath(Path(folder, name), root)
                skipped.append(Skipped(printable(relative), "link_to_folder", "Links to folders are not followed."))
        for name in sorted(names):
            path = Path(folder, name)
            if not _is_litter(name) and _is_regular(path):
                yield path


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # a dangling link: reading it fails, and it is then listed as skipped


def _from_manifest(manifest: Path) -> ItemList:
    try:
        text = read_file(manifest).decode("utf-8-sig")
    except FileUnreadable as problem:
        raise ManifestInvalid(f"{manifest}{str(problem).removeprefix('The file')}") from problem
    except UnicodeDecodeError as problem:
        raise ManifestInvalid(f"{manifest} is not a CSV file in UTF-8.") from problem
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        for column in ("path", "class"):
            if column not in columns:
                raise ManifestInvalid(f'{manifest} has no column "{column}"; its first line must be path,class[,id].')
        items = [_manifest_item(manifest, reader.line_num, row) for row in reader]
    except csv.Error as problem:
        raise ManifestInvalid(f"{manifest}, line {reader.reader.line_num}: {problem}.") from problem
    refuse_duplicate_ids(items)
    return ItemList(sorted(items, key=lambda item: item.id), [])


def _manifest_item(manifest: Path, line: int, row: dict[str, str | None]) -> Item:
    path, label = row["path"], row["class"]
    if not path or not label or None in row:
        raise ManifestInvalid(f"{manifest}, line {line}: every line needs a path and a class, and no more columns.")
    # "a.jpg" and "./a.jpg" are one file, and one id.
    identity = row.get("id") or id_of(os.path.normpath(path))
    if not identity.isprintable() or " " in identity:  # lists of predictions separate ids by a space
        raise ManifestInvalid(f"{manifest}, line {line}: an id has no spaces and no unprintable characters.")
    return Item(id=identity, label=normalise_label(label), path=manifest.parent / path)


def refuse_duplicate_ids(items: Iterable[Photo]) -> None:
    """Raises DuplicateId naming the first id that occurs twice."""
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DuplicateId(f'The id "{item.id}" occurs twice; ids must be unique.')
        seen.add(item.id)


def split_classes(items: Sequence[Item], seed: int = 0) -> tuple[list[Item], list[Item]]:
    """Splits items into (train, validation) with no class in both.

    A fifth of the classes go to validation, at least two of them. The choice depends only on the names and the seed, so
    that new photos never move a class. Fewer than five classes all go to training.
    """
    labels = {item.label for item in items}
    if len(labels) < 5:
        return list(items), []
    order = sorted(labels, key=lambda label: hashlib.sha256(f"{seed}/{label}".encode()).digest())
    held = set(order[: max(2, round(len(labels) / 5))])
    train = [item for item in items if item.label not in held]
    return train, [item for item in items if item.label in held]
