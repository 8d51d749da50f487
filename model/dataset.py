"""Sets of photos: folders or a CSV manifest -> items, and class-disjoint splits of them."""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Protocol, TypeVar

from model.errors import CarsearchError, DataInvalid, DuplicateId, EmptyGallery, FileUnreadable, ManifestInvalid
from model.folders import FEW_CLASSES, SAY_DEPTH, doubt_about_classes, is_excluded, is_litter, label_of, photo_files
from model.local_paths import local_path
from model.names import ids_of, normalise_label, printable, similar_labels
from model.spreadsheet import Sheet, SheetRow, read_sheet

T = TypeVar("T")
MAX_FILE_BYTES = 256 << 20
REASONS_TOLD = 3
NO_METADATA: Mapping[str, str] = {}
"""One for all photos without any."""

SIDE_FILE = "photos.csv"
"""At the top of a folder it tells more of the photos in it."""


class Photo(Protocol):
    """A photo, wherever its bytes are: `id` is unique in its set; `label` is its class, empty where it has none."""

    @property
    def id(self) -> str: ...

    @property
    def label(self) -> str: ...

    def read(self) -> bytes:
        """The photo's bytes; raises FileUnreadable."""
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """A photo on disk."""

    id: str
    label: str
    path: Path
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA, hash=False)
    """The other columns of a spreadsheet, as it has them; empty cells are empty."""

    @property
    def file(self) -> Path | None:
        """Where it lies on this machine; None for one that does not."""
        return self.path

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
    """The items of a set, ordered by id, and its entries that are not used.

    `doubt` is a sentence where the folders taken for classes may be something else. `notes` are sentences about the
    labels, for people.
    """

    items: list[Item]
    skipped: list[Skipped]
    doubt: str | None = None
    notes: tuple[str, ...] = ()


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


def read_items(
    source: Path, *, class_depth: int | None = None, exclude: Sequence[str] = (), without: Path | None = None
) -> ItemList:
    """Reads a set of photos: a directory, or a CSV manifest with `path[,class][,id]`.

    In a directory the first folder names the class, or the one at `class_depth`; photos may be at any depth below it,
    and those that lie above it have no class. Every regular file counts as a photo until it is decoded, but for what
    `model.folders` passes over, what a pattern of `exclude` names, and what lies in `without`, the folder of an index.
    In a manifest, paths are relative to the manifest, and patterns name paths; a `class_depth` of 0 leaves its classes
    out. Other columns of a manifest, or of `photos.csv` at the top of a directory, are the photos' metadata.

    Raises DataInvalid (and its kinds) when the set as a whole cannot be used.
    """
    try:
        mode = source.stat().st_mode
    except OSError as problem:
        raise DataInvalid(f"{source} cannot be read: {problem.strerror}.") from problem
    if stat.S_ISDIR(mode):
        found = _with_side_file(source, _from_folders(source, class_depth, exclude, without), exclude)
    elif class_depth:
        raise DataInvalid(f"{source} is a manifest, which names the classes itself; leave the depth of folders out.")
    else:
        found = _from_manifest(source, exclude)
    if class_depth == 0 and not stat.S_ISDIR(mode):
        found = replace(found, items=[replace(item, label="") for item in found.items])
    return checked(source, found, few=FEW_CLASSES if stat.S_ISDIR(mode) else 0)


def checked(source: str | Path, found: ItemList, few: int) -> ItemList:
    """A set with the notes on its labels, which are named where there are few; raises EmptyGallery."""
    refuse_empty(source, len(found.items), found.skipped)
    labels = {item.label for item in found.items if item.label}
    return replace(found, notes=(*found.notes, *_notes_on(labels, few)))


def _notes_on(labels: set[str], few: int) -> tuple[str, ...]:
    """Sentences about the classes of a set: which they are where there are few, and which look alike."""
    found = [f"The classes found are: {', '.join(sorted(labels))}."] if 0 < len(labels) <= few else []
    groups = [", ".join(f'"{label}"' for label in group) for group in similar_labels(labels)]
    return (*found, *(f"These classes differ only in case or blanks: {quoted}." for quoted in groups))


def refuse_empty(source: str | Path, usable: int, skipped: Sequence[Skipped]) -> None:
    """Raises EmptyGallery where no photo of a set can be used, with the first reasons."""
    if usable:
        return
    if not skipped:
        raise EmptyGallery(f"There are no photos in {source}.")
    reasons = " ".join(f"{one.name}: {one.message}" for one in skipped[:REASONS_TOLD])
    raise EmptyGallery(f"None of the {len(skipped)} files in {source} is a photo that can be used. {reasons}")


def read_labelled(source: Path, *, class_depth: int | None = None, exclude: Sequence[str] = ()) -> ItemList:
    """Reads a set whose classes are needed; photos without one are listed as skipped.

    Raises as `read_items`, and DataInvalid where no photo has a class or the folders may not be the classes.
    """
    found = read_items(source, class_depth=class_depth, exclude=exclude)
    if found.doubt:
        raise DataInvalid(f"{found.doubt} {SAY_DEPTH}")
    labelled = [item for item in found.items if item.label]
    if not labelled:
        raise DataInvalid(
            f"The {len(found.items)} photos of {source} have no classes, which are needed here: one folder a class, or "
            'a CSV file with the columns "path" and "class".'
        )
    without = [Skipped(item.id, "no_class", "The photo has no class.") for item in found.items if not item.label]
    return ItemList(labelled, [*found.skipped, *without], None, found.notes)


def spread(items: Sequence[T], most: int) -> list[T]:
    """Up to `most` of some items, at even steps.

    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def _from_folders(root: Path, class_depth: int | None, exclude: Sequence[str], without: Path | None) -> ItemList:
    paths: list[Path] = []
    skipped: list[Skipped] = []
    for path, problem in photo_files(root, exclude, without):
        if problem is None:
            paths.append(path)
        else:
            skipped.append(Skipped(printable(str(path.relative_to(root))), "link_to_folder", problem))
    relatives = [path.relative_to(root) for path in paths]
    ids = ids_of([str(relative) for relative in relatives])
    depth = 1 if class_depth is None else class_depth
    items = [
        Item(identity, label_of(relative.parts[:-1], depth), path)
        for identity, relative, path in zip(ids, relatives, paths, strict=True)
    ]
    doubt = doubt_about_classes([relative.parts[:-1] for relative in relatives]) if class_depth is None else None
    return ItemList(sorted(items, key=lambda item: item.id), skipped, doubt)


def _from_manifest(manifest: Path, exclude: Sequence[str]) -> ItemList:
    sheet, folder = _read_sheet(manifest), manifest.parent
    items = [_manifest_item(manifest, sheet, row) for row in sheet.rows]
    if exclude:
        items = [item for item in items if not is_excluded(PurePath(_key(item.path, folder)), exclude)]
    refuse_duplicate_ids(items)
    return ItemList(sorted(items, key=lambda item: item.id), [])


def _read_sheet(file: Path) -> Sheet:
    try:
        return read_sheet(read_file(file), str(file))
    except FileUnreadable as problem:
        raise ManifestInvalid(f"{file}{str(problem).removeprefix('The file')}") from problem


def _manifest_item(manifest: Path, sheet: Sheet, row: SheetRow) -> Item:
    path = _path_of(manifest, sheet, row)
    # "a.jpg" and "./a.jpg" are one file, and one id.
    identity = id_in(row, f"{manifest}, line {row.line}") or ids_of([os.path.normpath(path)])[0]
    return Item(identity, _label_of(sheet, row), manifest.parent / path, sheet.others(row, "id"))


def id_in(row: SheetRow, where: str) -> str:
    """The id that a row gives its photo, empty for the usual one; raises ManifestInvalid that begins with `where`."""
    identity = row.cells.get("id", "")
    if not identity.isprintable():
        raise ManifestInvalid(f"{where}: an id has no unprintable characters.")
    return identity


def _label_of(sheet: Sheet, row: SheetRow) -> str:
    return normalise_label(row.cells.get(sheet.class_column or "", ""))


def _path_of(file: Path, sheet: Sheet, row: SheetRow) -> str:
    """The path of a row's photo, relative to the folder of the file unless it is absolute."""
    written = row.cells[sheet.path_column]
    if not written:
        raise ManifestInvalid(f'{file}, line {row.line}: the cell of "{sheet.path_column}" is empty.')
    try:
        return local_path(written, file.parent)
    except DataInvalid as problem:
        raise ManifestInvalid(f"{file}, line {row.line}: {problem}") from problem


def _with_side_file(root: Path, found: ItemList, exclude: Sequence[str]) -> ItemList:
    """Joins the rows of `photos.csv` at the top of a folder, where there is one, to its photos by their paths.

    A class that is not empty wins over the folder's. A column `id` is metadata here: a dealer's number of a car, say,
    which several photos share. Rows without a photo are listed, but for those of files that are left out.
    """
    file = root / SIDE_FILE
    if not file.is_file():
        return found
    sheet = _read_sheet(file)
    rows: dict[str, SheetRow] = {}
    for row in sheet.rows:
        if rows.setdefault(_key(root / _path_of(file, sheet, row), root), row) is not row:
            raise ManifestInvalid(f"{file}, line {row.line}: an earlier row is of the same photo.")
    items: list[Item] = []
    for item in found.items:
        key = _key(item.path, root)
        if key in rows:
            row = rows.pop(key)
            item = replace(item, label=_label_of(sheet, row) or item.label, metadata=sheet.others(row))
        items.append(item)
    missing = f"{SIDE_FILE} has a row for it, and the folder has no such photo."
    absent = [
        Skipped(printable(row.cells[sheet.path_column]), "photo_missing", missing)
        for key, row in rows.items()
        if not _is_left_out(PurePath(key), exclude)
    ]
    doubt = None if sheet.class_column else found.doubt
    return ItemList(items, [*found.skipped, *absent], doubt)


def _is_left_out(relative: PurePath, exclude: Sequence[str]) -> bool:
    return is_excluded(relative, exclude) or any(is_litter(part) for part in relative.parts if part != "..")


def _key(path: Path, root: Path) -> str:
    """A path below a folder, for comparison: macOS writes names in another Unicode form than spreadsheets do."""
    return unicodedata.normalize("NFC", os.path.relpath(path, root))


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
