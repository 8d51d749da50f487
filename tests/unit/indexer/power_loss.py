"""What a disk holds after the power went: only what was synced, while a build runs in this process.

The content of a file is what it was at its last fsync, and nothing before the first. A directory's names are those of
its last fsync; a second disk keeps every name at once and loses contents only, as some file systems do. What SQLite
syncs by itself is not seen, so that unfinished work always counts as lost.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import pytest

STEPS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")


class Disk:
    """Follows the syncs of this process below `root`. `honest` is whether they do anything."""

    def __init__(self, root: Path, honest: bool = True) -> None:
        self.root = root
        self.losses: list[dict[str, Path]] = []
        self._honest = honest
        self._writing = False
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._folders: set[int] = set()
        self._held: list[int] = []  # as long as a file is open, no other gets its inode's number
        for path in (root, *root.rglob("*")):
            descriptor = os.open(path, os.O_RDONLY)
            self._sync(descriptor)
            os.close(descriptor)

    def _sync(self, descriptor: int) -> None:
        self._held.append(os.dup(descriptor))
        path, status = Path(f"/proc/self/fd/{descriptor}").readlink(), os.fstat(descriptor)
        if S_ISDIR(status.st_mode):
            self._names[status.st_ino] = self._live(path)
        else:
            self._contents[status.st_ino] = path.read_bytes()

    def _live(self, path: Path) -> dict[str, int]:
        """Name -> inode, as a directory is now."""
        with os.scandir(path) as entries:
            found = list(entries)
        self._folders |= {entry.inode() for entry in found if entry.is_dir()}
        return {entry.name: entry.inode() for entry in found}

    def lose_power(self, folder: Path) -> dict[str, Path]:
        """Writes what would be left: "nothing": no name and no content unless synced; "names": every name as it is."""
        left = {"nothing": folder / "nothing", "names": folder / "names"}
        self._write(left["nothing"], self.root.stat().st_ino, None)
        self._write(left["names"], self.root.stat().st_ino, self.root)
        return left

    def _write(self, target: Path, folder: int, live: Path | None) -> None:
        target.mkdir(parents=True)
        for name, inode in (self._live(live) if live else self._names.get(folder, {})).items():
            if inode in self._folders:
                self._write(target / name, inode, live and live / name)
            else:
                (target / name).write_bytes(self._contents.get(inode, b""))

    @contextmanager
    def watched(self, folder: Path) -> Iterator[None]:
        """Inside, the power goes before every step, and what is then left is kept below `folder`."""
        with pytest.MonkeyPatch.context() as patch:
            for name in STEPS:
                patch.setattr(os, name, self._step(name, getattr(os, name), folder))
            yield
        self.losses.append(self.lose_power(folder / "end"))
        for descriptor in self._held:
            os.close(descriptor)

    def _step(self, name: str, original: Callable[..., Any], folder: Path) -> Callable[..., Any]:
        def stepping(*arguments: Any, **options: Any) -> Any:
            if self._writing:
                return original(*arguments, **options)
            self._writing = True
            self.losses.append(self.lose_power(folder / str(len(self.losses))))
            self._writing = False
            result = original(*arguments, **options)
            if name == "fsync" and self._honest:
                self._sync(arguments[0])
            return result

        return stepping
