"""Paths of photos as people write them into a spreadsheet on their own machine -> paths that can be opened.

A spreadsheet inside an archive never comes through here: its sender must not name files of this machine.
"""

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote_to_bytes

from model.errors import DataInvalid

FILE_URL = re.compile(r"file://([^/]*)(/.*)", re.IGNORECASE | re.DOTALL)
WEB_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
DRIVE = re.compile(r"/?[A-Za-z]:([/\\]|$)")
WINDOWS_SHARE = re.compile(r"\\\\[^\\]")


def local_path(written: str, folder: Path) -> str:
    """The path that a cell means, relative to `folder` unless it is absolute.

    What a file is called as it stands is taken as it stands. Else "\\" separates folders as on Windows, "~" is a home,
    file:// is decoded, and a name is looked for in either Unicode form, because macOS writes another one than
    spreadsheets do. Raises DataInvalid for what cannot be on this machine: Windows drives and shares, other hosts.
    """
    if written.isascii() and "\\" not in written and ":" not in written and written[0] != "~":
        return written
    if _exists(folder, written):
        return written
    path = _translated(written)
    spellings = (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))
    return next((spelling for spelling in spellings if _exists(folder, spelling)), path)


def _translated(written: str) -> str:
    if url := FILE_URL.match(written):
        if url[1].lower() not in ("", "localhost"):
            raise DataInvalid(f'"{written[:100]}" is a file of another machine; write its path on this one.')
        path = os.fsdecode(unquote_to_bytes(url[2]))
    elif WEB_URL.match(written):
        raise DataInvalid(f'"{written[:100]}" is an address of a network; download the photo and write its path.')
    else:
        path = written
    if DRIVE.match(path) or WINDOWS_SHARE.match(path):
        raise DataInvalid(
            f'"{path.removeprefix("/")[:100]}" is a path of Windows, which this machine does not have; '
            "write paths relative to the folder of the CSV file."
        )
    path = path.replace("\\", "/")
    if path != "~" and not path.startswith("~/"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as problem:
        raise DataInvalid(f'"{written[:100]}" is in a home, and this user has none; write the whole path.') from problem


def _exists(folder: Path, path: str) -> bool:
    try:
        return os.path.lexists(folder / path)
    except ValueError:  # a NUL character, in a file:// address
        return False
