"""Versions that were verified with this state directory: such a one is served at once, and verified again meanwhile."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.versions import IndexDirectory
from model.card import canonical_sha256
from model.storage import write_durably
from service.process import lower_priority

log = logging.getLogger("carsearch")


class VerifiedVersions:
    """`<state>/verified/<version>`: what the files of a version were when every byte of them was verified.

    That is a hash of its manifest, and of the size, time of change and inode of each file. Without a state directory
    nothing is known.
    """

    def __init__(self, index: IndexDirectory, state_dir: Path | None) -> None:
        self._index = index
        self._folder = None if state_dir is None else state_dir / "verified"

    def state_of(self, version: str) -> str:
        """A hash of what a version is now; raises VersionNotFound, IndexInvalid and OSError."""
        manifest = self._index.manifest(version)
        files = []
        for path in sorted(self._index.path_of(version).iterdir()):
            status = path.lstat()
            files.append([path.name, status.st_size, status.st_mtime_ns, status.st_ino])
        return canonical_sha256([manifest.to_json(), files])

    def holds(self, version: str, state: str) -> bool:
        """Tells if a version was verified in this state."""
        try:
            return self._folder is not None and (self._folder / version).read_text() == state
        except (OSError, ValueError):
            return False

    def add(self, version: str, state: str) -> None:
        """Notes that a version was verified in a state; forgets versions that are gone."""
        if self._folder is None:
            return
        with self._told():
            self._folder.mkdir(exist_ok=True)
            write_durably(self._folder / version, state.encode())
            for path in self._folder.iterdir():
                if not self._index.path_of(path.name).is_dir():
                    path.unlink(missing_ok=True)

    def forget(self, version: str) -> None:
        """Has a version verified first from now on."""
        if self._folder is not None:
            with self._told():
                (self._folder / version).unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Logs what the disk refuses: the version is served or taken back all the same."""
        try:
            yield
        except OSError as problem:
            log.warning("%s cannot be written: %s.", self._folder, problem.strerror or problem)


class Verification(threading.Thread):
    """Verifies every byte of a version that is served already; `problem` is what it found, None for nothing."""

    def __init__(self, index: IndexDirectory, version: str) -> None:
        super().__init__(name="index-verification", daemon=True)
        self.version = version
        self.problem: Exception | None = None
        self._index = index

    def run(self) -> None:
        lower_priority()
        try:
            self._index.verify(self.version)
        except Exception as problem:  # a crafted version may raise anything, and is refused like a damaged one
            self.problem = problem
