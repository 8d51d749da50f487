"""CSV files as spreadsheet programs write them -> columns and rows of text."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from model.errors import ManifestInvalid

DELIMITERS = ",;\t"
PATH_COLUMNS = ("path", "file", "filename", "image")
CLASS_COLUMNS = ("class", "label")
MAX_COLUMNS = 64
MAX_CELL = 4_000
"""Characters of a cell."""

HEADER_BYTES = 1 << 18
"""What is looked at to find the columns: 64 cells of 4,000 characters, or less, and the delimiter."""

COLUMNS_TOLD = 8
SAVE_AS = 'save it as "CSV UTF-8"'
SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?\r?\n', re.IGNORECASE)
"""Excel's first line that names the delimiter."""

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
ZIP, OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
LIKELY_ENCODINGS = [
    "cp949", "cp932", "gb18030", "big5", "cp874",
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1258",
]  # fmt: skip
"""What spreadsheet programs write without being told: Windows' code pages."""


@dataclass(frozen=True, slots=True)
class SheetRow:
    """The cells of one row by the name of their column, and the line of the file in which the row ends."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of photos: the two columns that say what a photo is, named as `column_name` does, and rows.

    `class_column` is None where no column names the class.
    """

    path_column: str
    class_column: str | None
    rows: list[SheetRow]

    def others(self, row: SheetRow, *but: str) -> dict[str, str]:
        """The cells of a row that say neither where the photo lies nor its class, nor are of the columns `but`."""
        known = {self.path_column, self.class_column, *but}
        return {name: cell for name, cell in row.cells.items() if name not in known}


def column_name(header: str) -> str:
    """The name of a column by its header: lower case, and "_" for blanks and for what ends a name in a filter.

    >>> column_name(" Price (EUR) ")
    'price_eur'
    """
    return re.sub(r"""[\s()<>=!'"]+""", "_", unicodedata.normalize("NFC", header).lower()).strip("_")


def read_sheet(data: bytes, name: str, max_rows: int | None = None) -> Sheet:
    """Reads a CSV file with a row a photo; rows of empty cells, and columns without a header, are passed over.

    The delimiter is a comma, semicolon or tab, or what a line "sep=" says; the text is UTF-8 or UTF-16. Blanks around
    cells are no part of them. Raises ManifestInvalid with a sentence that begins with `name`, also for more than
    `max_rows` rows.
    """
    lines = _rows(_text(data, name), name)
    _, headers = next(lines, (0, []))
    columns = _columns(headers, name)
    path_column, class_column = _known_columns(columns, headers, name)
    rows: list[SheetRow] = []
    for line, cells in lines:
        if len(rows) == max_rows:
            raise ManifestInvalid(f"{name} has more than {max_rows} rows; leave out those of other photos.")
        rows.append(SheetRow(line, _cells(columns, cells, f"{name}, line {line}")))
    return Sheet(path_column, class_column, rows)


def names_classes(data: bytes) -> bool:
    """Whether a file begins as a CSV file with a column of paths and one of classes."""
    text = data[:HEADER_BYTES].decode(_encoding(data), "ignore")
    try:
        _, headers = next(_rows(text, ""), (0, []))
    except ManifestInvalid:
        return False
    columns = {column_name(header) for header in headers}
    return not columns.isdisjoint(PATH_COLUMNS) and not columns.isdisjoint(CLASS_COLUMNS)


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, with the line in which each ends; raises ManifestInvalid."""
    separator = SEPARATOR_LINE.match(text)
    delimiter = separator[1] if separator else _delimiter(text[:HEADER_BYTES])
    start, skipped_lines = (separator.end(), 1) if separator else (0, 0)
    reader = csv.reader(io.StringIO(text[start:], newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield reader.line_num + skipped_lines, stripped
    except csv.Error as problem:
        raise ManifestInvalid(f"{name}, line {reader.line_num + skipped_lines}: {problem}.") from problem


def _encoding(data: bytes) -> str:
    return "utf-16" if data.startswith(UTF16_MARKS) else "utf-8-sig"


def _text(data: bytes, name: str) -> str:
    if data.startswith(OLD_EXCEL) or (data.startswith(ZIP) and _is_spreadsheet(data)):
        raise ManifestInvalid(f"{name} is a spreadsheet (.xlsx, .xls or .ods) and no CSV file; {SAVE_AS}.")
    if data.startswith(ZIP):
        raise ManifestInvalid(f"{name} is a zip and no CSV file; unpack it and name its folder.")
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        if encoding == "utf-16":
            raise ManifestInvalid(f"{name} is damaged or cut off: it is not the UTF-16 that it begins as.") from problem
        raise ManifestInvalid(f"{name} is not in UTF-8; {_looks_like(data)}{SAVE_AS}.") from problem
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ManifestInvalid(f"{name}, line {line}: a NUL character, which no CSV file in UTF-8 has; {SAVE_AS}.")
    return text


def _is_spreadsheet(zipped: bytes) -> bool:
    """A zip is one by the names in it: Microsoft's and LibreOffice's formats each have a member of their own."""
    return b"[Content_Types].xml" in zipped or b"mimetypeapplication/vnd.oasis.opendocument" in zipped[:200]


def _looks_like(data: bytes) -> str:
    from charset_normalizer import from_bytes  # takes long to import and is needed here only

    guess = from_bytes(data[: 1 << 20], cp_isolation=LIKELY_ENCODINGS).best()
    return "" if guess is None else f"it looks like {guess.encoding}: "


def _delimiter(text: str) -> str:
    """The delimiter that finds a column of paths in the first row that is not empty, and most columns there."""
    best = (False, 0)
    chosen = DELIMITERS[0]
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            headers = next((cells for cells in reader if any(cell.strip(f" {DELIMITERS}") for cell in cells)), [])
        except csv.Error:
            continue
        columns = [column_name(header) for header in headers]
        worth = not set(PATH_COLUMNS).isdisjoint(columns), len(columns)
        if worth > best:
            best, chosen = worth, delimiter
    return chosen


def _columns(headers: Sequence[str], name: str) -> list[str]:
    """Names of all columns by their headers; "" for one without, such as the row numbers that pandas writes."""
    columns = [column_name(header) for header in headers]
    if len(columns) > MAX_COLUMNS:
        raise ManifestInvalid(f"{name} has {len(columns)} columns; the most are {MAX_COLUMNS}.")
    for place, column in enumerate(columns):
        if column and column in columns[:place]:
            raise ManifestInvalid(f'{name} has the column "{column}" twice; rename one.')
    return columns


def _known_columns(columns: Sequence[str], headers: Sequence[str], name: str) -> tuple[str, str | None]:
    paths = [column for column in PATH_COLUMNS if column in columns]
    if not paths:
        raise ManifestInvalid(f'{name} has {_told(header for header in headers if header)}; it needs "path".')
    if len(paths) > 1 and paths[0] != PATH_COLUMNS[0]:
        raise ManifestInvalid(f'{name} has {_told(paths)}; rename the one with the paths to "path".')
    return paths[0], next((column for column in CLASS_COLUMNS if column in columns), None)


def _told(columns: Iterable[str]) -> str:
    names = [f'"{column[:40]}"' for column in columns]
    if not names:
        return "no columns"
    return f"the columns {', '.join(names[:COLUMNS_TOLD])}{', ...' if len(names) > COLUMNS_TOLD else ''}"


def _cells(columns: Sequence[str], cells: Sequence[str], where: str) -> dict[str, str]:
    """The cells of a row by column; those that a short row lacks are empty."""
    if any(cells[len(columns) :]):
        raise ManifestInvalid(
            f"{where}: {len(cells)} cells for {len(columns)} columns; a cell with a delimiter in it needs quotes."
        )
    if any(len(cell) > MAX_CELL for cell in cells):
        raise ManifestInvalid(f"{where}: a cell has more than {MAX_CELL} characters.")
    filled = [*cells, *[""] * (len(columns) - len(cells))]
    return {column: cell for column, cell in zip(columns, filled, strict=False) if column}
