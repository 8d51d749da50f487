"""Folders of photos: which files in them may be photos, and which level of folders names the class."""

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from model.errors import DataInvalid
from model.names import normalise_label, printable

LITTER = frozenset({
    "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found",
    "__macosx", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
})  # fmt: skip
"""Names of what NAS, operating systems and archivers leave behind, in lower case. Hidden files count as well."""

SIDE_FILES = frozenset({
    ".cfg", ".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".sha256", ".toml", ".tsv", ".txt", ".xml", ".xmp",
    ".yaml", ".yml",
})  # fmt: skip
"""Endings of files that lie beside photos and are passed over without a word."""

SPLITS = frozenset({
    "train", "training", "val", "valid", "validation", "test", "testing", "query", "gallery", "images", "image", "imgs",
    "img", "photos", "pictures", "data", "dataset",
})  # fmt: skip
"""Names of folders that hold a part of a set, or all of it, in lower case."""

FEW_CLASSES = 5
SAY_DEPTH = "Say at which depth the classes are (class depth 2, for example)."
"""What to do about a doubt, on the command line and over HTTP."""

INDEX_ENTRIES = frozenset({"versions", "models", "work", "CURRENT"})
"""What lies at the top of an index besides hidden files."""


def is_litter(name: str) -> bool:
    """True for the name of a file or folder that a system or an archiver left behind."""
    return name.startswith(".") or name.lower() in LITTER


def is_side_file(name: str) -> bool:
    """True for a file whose name has the ending of text or data, which is no photo."""
    return PurePath(name).suffix.lower() in SIDE_FILES


def label_of(folders: Sequence[str], class_depth: int) -> str:
    """The class of a photo by the folders that it lies in, from the top; empty where it does not lie so deep."""
    return normalise_label(printable(folders[class_depth - 1])) if 1 <= class_depth <= len(folders) else ""


def doubt_about_classes(photos: Sequence[Sequence[str]]) -> str | None:
    """Why the folders at the top of a set may not be its classes, in a sentence; None where nothing tells against it.

    `photos` are the folders that each photo lies in, from the top.
    """
    tops = sorted({folders[0] for folders in photos if folders})
    if not tops:
        return None
    deeper = {tuple(folders[:2]) for folders in photos if len(folders) > 1}
    names = ", ".join(printable(name)[:40] for name in tops[:FEW_CLASSES])
    if all(name.lower() in SPLITS for name in tops):
        return f"The folders at the top look like parts of a set and not like classes: {names}."
    if len(tops) <= FEW_CLASSES and len(deeper) > len(tops) and all(len(folders) > 1 for folders in photos):
        return f"The folders at the top ({names}) hold no photos but other folders, which may be the classes."
    return None


def photo_files(root: Path, exclude: Sequence[str], without: Path | None) -> Iterator[tuple[Path, str | None]]:
    """The files below a folder that may be photos, in no particular order; or why a link to a folder is not followed.

    Links to folders are followed to what has not been met yet, each folder once, so that no link doubles photos and no
    loop has no end. `exclude` are patterns for a name or a path relative to the folder. `without` is the folder of an
    index to leave out, or its entries where it is the folder itself. Raises DataInvalid for a folder that cannot be
    read.
    """
    met: set[tuple[int, int]] = set()
    left_out = _identity(without) if without is not None and without.is_dir() else None
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        identity = _identity(folder)
        holds_index = identity == left_out
        if holds_index and folder != root:
            continue
        if identity in met:
            yield folder, "The link leads to a folder that is in the set already."
            continue
        met.add(identity)
        for entry in _entries(folder):
            path = folder / entry.name
            if is_litter(entry.name) or (holds_index and entry.name in INDEX_ENTRIES):
                continue
            if exclude and _matches(path.relative_to(root), exclude):
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(path)
            elif _may_be_file(entry) and not is_side_file(entry.name):
                yield path, None
        links.sort(reverse=True)  # the first by name is followed first


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as problem:
        raise _unreadable(folder, problem) from problem
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as problem:
        raise _unreadable(folder, problem) from problem


def _unreadable(folder: Path, problem: OSError) -> DataInvalid:
    return DataInvalid(f"The folder {folder} cannot be read: {problem.strerror or problem}.")


def is_excluded(relative: PurePath, patterns: Sequence[str]) -> bool:
    """True when a pattern matches a file, or a folder above it; the path is relative to the set."""
    return bool(patterns) and any(_matches(path, patterns) for path in (relative, *relative.parents) if path.name)


def _matches(relative: PurePath, patterns: Sequence[str]) -> bool:
    names = (relative.name, relative.as_posix())
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    try:
        dangling = entry.is_symlink() and not Path(entry.path).exists()  # listed as skipped when reading it fails
        return entry.is_file() or dangling
    except OSError:
        return True
