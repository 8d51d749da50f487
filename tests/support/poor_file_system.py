"""A real file system without locks, whose directories cannot be synced: a folder served through FUSE.

Needs the package mfusepy and Debian's fuse3. As a program, `BACKING MOUNT`, it serves until it is unmounted.
"""

import errno
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import eventually

STATUS = ("st_atime_ns", "st_ctime_ns", "st_mtime_ns", "st_gid", "st_uid", "st_mode", "st_nlink", "st_size", "st_ino")
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def poor_file_system(folder: Path) -> Iterator[Path]:
    """Where it is mounted, below `folder`; skips where there is no FUSE."""
    pytest.importorskip("mfusepy", exc_type=ImportError)
    if not os.access("/dev/fuse", os.W_OK) or shutil.which("fusermount3") is None:
        pytest.skip("FUSE needs /dev/fuse and Debian's fuse3")
    backing, mount = folder / "backing", folder / "mount"
    backing.mkdir()
    mount.mkdir()
    with subprocess.Popen([sys.executable, "-m", "tests.support.poor_file_system", backing, mount], cwd=ROOT) as server:
        try:
            eventually(lambda: os.path.ismount(mount) or server.poll() is not None, "the file system is mounted")
            assert server.poll() is None
            yield mount
        finally:
            subprocess.run(["fusermount3", "-u", mount], check=False)
            server.wait(timeout=30)


class Forwarded:
    """Operations of FUSE on the folder `backing`; locks and syncs of directories fail."""

    use_ns = True

    def __init__(self, backing: str) -> None:
        self._backing = backing

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        status = os.lstat(self._backing + path) if fh is None else os.fstat(fh)
        return {key.removesuffix("_ns"): getattr(status, key) for key in STATUS}

    def readdir(self, path: str, _fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._backing + path)]

    def mkdir(self, path: str, mode: int) -> int:
        Path(self._backing + path).mkdir(mode)
        return 0

    def rmdir(self, path: str) -> int:
        Path(self._backing + path).rmdir()
        return 0

    def unlink(self, path: str) -> int:
        Path(self._backing + path).unlink()
        return 0

    def rename(self, old: str, new: str) -> int:
        Path(self._backing + old).rename(self._backing + new)
        return 0

    def create(self, path: str, mode: int, _fi: object = None) -> int:
        return os.open(self._backing + path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._backing + path, flags & ~os.O_APPEND)

    def read(self, _path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, _path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._backing + path if fh is None else fh, length)
        return 0

    def release(self, _path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def fsync(self, _path: str, _datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def fsyncdir(self, _path: str, _datasync: int, _fh: int) -> int:
        raise OSError(errno.EINVAL, "not here")

    def flock(self, _path: str, _fh: int, _operation: int) -> int:
        raise OSError(errno.ENOTSUP, "not here")

    def lock(self, _path: str, _fh: int, _command: int, _lock: object) -> int:
        raise OSError(errno.ENOLCK, "not here")


def serve(backing: str, mount: str) -> None:
    """Runs until the file system is unmounted."""
    fuse: Any = importlib.import_module("mfusepy")
    operations = type("Poor", (Forwarded, fuse.Operations), {})(backing)
    fuse.FUSE(operations, mount, foreground=True, nothreads=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
