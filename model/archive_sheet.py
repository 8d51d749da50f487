"""A CSV file at the top of an archive that names the classes of the photos in it.

Its paths name members of the archive and nothing else: whoever uploads an archive must not read the server's files.
"""

import posixpath
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from model.dataset import SIDE_FILE, Skipped
from model.errors import EvaluationSetInvalid, ManifestInvalid
from model.names import normalise_label
from model.spreadsheet import Sheet, read_sheet

MAX_SHEET_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class SheetFile:
    """A CSV file in an archive."""

    name: str
    size_bytes: int
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class ArchiveSheet:
    """What a CSV file tells of members, by name: the class, empty where it has none, and the id, empty for the usual.

    `only_listed` says that the photos are those with a row; else the others have the class of their folder. `missing`
    are rows without a photo.
    """

    labels: dict[str, str]
    ids: dict[str, str]
    only_listed: bool
    missing: list[Skipped]


def read_archive_sheet(files: Iterable[SheetFile], members: Iterable[str]) -> ArchiveSheet | None:
    """Reads the one CSV file with the columns of a manifest, `path` and `class`; None where there is none.

    `photos.csv` adds to the folders, a file of another name replaces them. Raises ManifestInvalid, and
    EvaluationSetInvalid for several such files.
    """
    sheets = [(file, sheet) for file in files if (sheet := _sheet_in(file)) is not None]
    if not sheets:
        return None
    if len(sheets) > 1:
        names = ", ".join(posixpath.basename(file.name)[:40] for file, _ in sheets[:5])
        raise EvaluationSetInvalid(f"Several CSV files at the top of the archive name classes: {names}. Leave one.")
    ((file, sheet),) = sheets
    known = {unicodedata.normalize("NFC", name): name for name in members}
    labels: dict[str, str] = {}
    ids: dict[str, str] = {}
    missing: list[Skipped] = []
    for row in sheet.rows:
        written, where = row.cells[sheet.path_column], f"{posixpath.basename(file.name)}, line {row.line}"
        member = known.get(_name_of(written, posixpath.dirname(file.name), where))
        if member is None:
            missing.append(Skipped(written, "photo_missing", "The archive has no such photo."))
            continue
        if member in labels:
            raise ManifestInvalid(f"{where}: an earlier row is of the same photo.")
        labels[member] = normalise_label(row.cells[sheet.class_column or ""])
        ids[member] = row.cells.get("id", "")
    return ArchiveSheet(labels, ids, posixpath.basename(file.name).lower() != SIDE_FILE, missing)


def _sheet_in(file: SheetFile) -> Sheet | None:
    """The table of a CSV file, None for one that is about something else."""
    if file.size_bytes > MAX_SHEET_BYTES:
        return None
    try:
        sheet = read_sheet(file.read(), posixpath.basename(file.name))
    except ManifestInvalid:
        if posixpath.basename(file.name).lower() == SIDE_FILE:
            raise
        return None
    return sheet if sheet.class_column else None


def _name_of(written: str, folder: str, where: str) -> str:
    """The member that a path names, which is relative to the CSV file's folder; raises ManifestInvalid."""
    path = written.replace("\\", "/")
    if not path or path.startswith(("/", "~")) or ":" in path.partition("/")[0] or ".." in path.split("/"):
        raise ManifestInvalid(f"{where}: a path in an archive is relative and does not leave it.")
    return unicodedata.normalize("NFC", posixpath.normpath(posixpath.join(folder, path)))
