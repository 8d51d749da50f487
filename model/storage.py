"""Durable files: hashing, replacement that survives a crash, and reading JSON that may be damaged."""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import CarsearchError

log = logging.getLogger("carsearch")

CANNOT_SYNC_DIRECTORIES = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES})
"""What file systems answer that have no fsync of a directory: CIFS, some of FUSE."""

_told: set[int] = set()
"""Numbers of such file systems that the log has named."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """The size in bytes and the sha256 in hex of one file, as a manifest records them."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        """Raises TypeError, because a manifest may be damaged or forged."""
        if type(self.bytes) is not int or self.bytes < 0 or not isinstance(self.sha256, str):
            raise TypeError("a file has a number of bytes and a sha256")

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        return cls(bytes=path.stat().st_size, sha256=sha256_file(path))

    def problem(self, path: Path, *, content: bool = True) -> str | None:
        """What is wrong with the file at `path`, as the end of a sentence, or None; without `content` only its size."""
        try:
            if path.stat().st_size != self.bytes:
                return f"has {path.stat().st_size} bytes instead of {self.bytes}"
            if content and sha256_file(path) != self.sha256:
                return "does not have the recorded sha256"
        except OSError as problem:
            return f"cannot be read ({problem.strerror})"
        return None


def sha256_file(path: Path) -> str:
    """sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, error: type[CarsearchError]) -> dict[str, Any]:
    """Reads a JSON object; raises `error` when the file is missing, unreadable or holds something else."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}.") from problem
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is not valid JSON.") from problem
    if not isinstance(value, dict):
        raise error(f"{path} does not hold a JSON object.")
    return value


def write_durably(path: Path, data: bytes) -> None:
    """Replaces a file; a crash at any moment leaves the old content or the new, whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk, half a file would keep it full
        raise
    fsync_directory(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the path to an OSError of writing or syncing, which knows only a file descriptor."""
    try:
        yield
    except OSError as problem:
        problem.filename = problem.filename or str(path)
        raise


def make_directory(path: Path) -> None:
    """Creates a directory and its missing parents, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        fsync_directory(folder.parent)


def fsync_file(path: Path) -> None:
    """Makes a file's content durable."""
    _fsync(path, os.O_RDWR)  # some servers of files sync none that is open for reading alone


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Makes renames and new names in a directory durable; fsync of the file alone does not (fsync(2)).

    Where the file system cannot do that, the log says so once. Contents are durable all the same. Raises other errors.
    """
    try:
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as problem:
        if problem.errno not in CANNOT_SYNC_DIRECTORIES:
            raise
        if (file_system := path.stat().st_dev) not in _told:
            _told.add(file_system)
            log.warning(
                "The file system of %s cannot sync directories (%s): a power cut may undo what was just written; "
                "then run the same command again.",
                path,
                problem.strerror,
            )
