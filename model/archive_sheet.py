"""A CSV file at the top of an archive that names the classes or ids of the photos in it.

Its paths name members of the archive and nothing else: whoever uploads an archive must not read the server's files.
"""

import posixpath
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from model.dataset import SIDE_FILE, Skipped, id_in
from model.errors import EvaluationSetInvalid, ImageRejected, ManifestInvalid
from model.names import normalise_label, printable
from model.spreadsheet import names_classes, read_sheet

MAX_SHEET_BYTES = 16 << 20
MISSING_LISTED = 100


@dataclass(frozen=True, slots=True)
class SheetFile:
    """A CSV file in an archive."""

    name: str
    size_bytes: int
    read: Callable[[], bytes]

    @property
    def called(self) -> str:
        """Its name without its folder, as it can be told."""
        return printable(posixpath.basename(self.name))


@dataclass(frozen=True, slots=True)
class ArchiveSheet:
    """What a CSV file tells of members, by name: the class, empty where it has none, and the id, empty for the usual.

    `has_classes` says that it has a column of them, `only_listed` that the photos are those with a row; else the others
    have the class of their folder. `missing` are rows without a photo, those behind the hundredth as one.
    """

    labels: dict[str, str]
    ids: dict[str, str]
    has_classes: bool
    only_listed: bool
    missing: list[Skipped]


def read_archive_sheet(files: Iterable[SheetFile], members: Iterable[str], max_rows: int) -> ArchiveSheet | None:
    """Reads the one CSV file that says something of photos; None where there is none.

    `photos.csv` adds to the folders. A file of another name with the columns `path` and `class` replaces them. Raises
    ManifestInvalid, also for more than `max_rows` rows, and EvaluationSetInvalid for several such files.
    """
    chosen: tuple[SheetFile, bytes] | None = None
    for file in files:
        data = _content(file)
        if data is None:
            continue
        if chosen is not None:
            raise EvaluationSetInvalid(
                "Several CSV files at the top of the archive describe its photos: "
                f"{chosen[0].called[:40]}, {file.called[:40]}. Leave one."
            )
        chosen = file, data
    if chosen is None:
        return None
    file, data = chosen
    sheet = read_sheet(data, file.called, max_rows)
    known = {unicodedata.normalize("NFC", name): name for name in members}
    labels: dict[str, str] = {}
    ids: dict[str, str] = {}
    missing: list[str] = []
    for row in sheet.rows:
        written, where = row.cells[sheet.path_column], f"{file.called}, line {row.line}"
        member = known.get(_name_of(written, posixpath.dirname(file.name), where))
        if member is None:
            missing.append(written)
            continue
        if member in labels:
            raise ManifestInvalid(f"{where}: an earlier row is of the same photo.")
        labels[member] = normalise_label(row.cells.get(sheet.class_column or "", ""))
        ids[member] = "" if file.called == SIDE_FILE else id_in(row, where)
    missing_rows = _listed(missing, file.called)
    return ArchiveSheet(labels, ids, sheet.class_column is not None, file.called != SIDE_FILE, missing_rows)


def _content(file: SheetFile) -> bytes | None:
    """The bytes of a CSV file that describes photos, None for one that is about something else."""
    is_wanted = file.called == SIDE_FILE
    if file.size_bytes > MAX_SHEET_BYTES:
        if is_wanted:
            raise ManifestInvalid(f"{SIDE_FILE} is larger than {MAX_SHEET_BYTES >> 20} MiB.")
        return None
    try:
        data = file.read()
    except ImageRejected as problem:
        raise ManifestInvalid(f"{file.called} is damaged inside the archive.") from problem
    return data if is_wanted or names_classes(data) else None


def _listed(missing: list[str], sheet: str) -> list[Skipped]:
    listed = [Skipped(name, "photo_missing", "The archive has no such photo.") for name in missing[:MISSING_LISTED]]
    if further := len(missing) - len(listed):
        message = f"The archive lacks {further} more of the photos that this file names."
        listed.append(Skipped(sheet, "photo_missing", message))
    return listed


def _name_of(written: str, folder: str, where: str) -> str:
    """The member that a path names, which is relative to the CSV file's folder; raises ManifestInvalid."""
    path = written.replace("\\", "/")
    if not path or path.startswith(("/", "~")) or ":" in path.partition("/")[0] or ".." in path.split("/"):
        raise ManifestInvalid(f"{where}: a path in an archive is relative and does not leave it.")
    return unicodedata.normalize("NFC", posixpath.normpath(posixpath.join(folder, path)))
