"""A directory of this process alone; when the process is killed, another one removes it later."""

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "carsearch-private-"
LOCK_NAME = "lock"
STALE_S = 60
"""What was last touched so long ago is not being made this moment."""


class PrivateDirectory:
    """`path` is there until `close`. Making one removes those that killed processes of this user left behind."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = (self.path / LOCK_NAME).open("w")  # held until the process ends
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in self.path.parent.glob(f"{PREFIX}*"):
            _remove_if_left(path)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_if_left(path: Path) -> None:
    try:
        found = path.lstat()  # never through a link: the temporary directory is everybody's
        if path.is_symlink() or found.st_uid != os.geteuid() or time.time() - found.st_mtime < STALE_S:
            return
        with (path / LOCK_NAME).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # its process lives, or another one is removing it
        return
