"""What an index version holds, read into memory; by a server first in a process of its own, for fear of what it does.

FAISS and SQLite read an index in native code. A manifest's sha256 tells what was damaged, but whoever can write the
manifest writes the sha256 too, and a file that was made to crash its reader would take the server with it. So a child
process reads a version before the server does, and when that child crashes, hangs or objects the version is refused. It
is no sandbox: the child may do what the server may do.

    python -m indexer.load INDEX_DIRECTORY VERSION SECONDS
"""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from indexer.items import ItemNames, ItemTable
from indexer.stores.faiss import FaissStore
from indexer.versions import INDEX_NAME, ITEMS_NAME, IndexDirectory, Manifest
from model.errors import CarsearchError, DimMismatch, IndexInvalid

START_S = 60
SLOWEST_BYTES_PER_S = 20_000_000
"""How long a child may take: a slow machine to start Python, a slow disk to read. The bytes were read a moment ago."""

ADDRESS_SPACE_BYTES = 8 << 30
"""Beside twice the index: libraries for a GPU map gigabytes that they never touch."""

REMEMBERED = 16
REFUSED = 3
"""Exit status of a child that found something wrong, and said what; 1 is Python's own for a traceback."""


class Contents(NamedTuple):
    """A version in memory."""

    store: FaissStore
    items: ItemTable
    names: ItemNames


def read_contents(directory: Path, manifest: Manifest) -> Contents:
    """Reads a version whose files have been verified; raises IndexInvalid when they are not what its manifest says."""
    store = FaissStore.read(directory / INDEX_NAME, manifest.dim, manifest.count, manifest.storage)
    items = ItemTable(directory / ITEMS_NAME)
    try:
        if len(items) != manifest.count:
            raise IndexInvalid(f"{directory / ITEMS_NAME} has {len(items)} items for {manifest.count} vectors.")
        return Contents(store, items, items.names())
    except IndexInvalid:
        items.close()
        raise


class Trials:
    """Has versions read in child processes, one at a time. `close` may be called from any thread.

    A version that was read well is not read in a child again, as long as it is one of the last few.
    """

    def __init__(self) -> None:
        self._passed: deque[Manifest] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    @contextmanager
    def begin(self, index: IndexDirectory, manifest: Manifest) -> Iterator[Callable[[], None]]:
        """Starts reading a verified version; what is given waits for the end, and raises IndexInvalid if it went wrong.

        Whatever else a server has to load it may load in the meantime, on another core.
        """
        if manifest in self._passed:  # the sha256 of its files with it: the same bytes
            yield lambda: None
            return
        limit_s = START_S + manifest.files[INDEX_NAME].bytes // SLOWEST_BYTES_PER_S
        with self._start(index, manifest, limit_s) as child:

            def wait() -> None:
                try:
                    told, _ = child.communicate(timeout=limit_s + START_S)  # by then it has ended itself, if it runs
                except subprocess.TimeoutExpired as problem:
                    raise _too_slow(index.path_of(manifest.id)) from problem
                if child.returncode:
                    raise _refusal(index.path_of(manifest.id), child.returncode, told)
                self._passed.append(manifest)

            try:
                yield wait
            finally:
                child.kill()

    def _start(self, index: IndexDirectory, manifest: Manifest, limit_s: int) -> "subprocess.Popen[bytes]":
        # This very code, by this process's path, and not what lies where the server was started. One thread is enough.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "indexer.load", str(index.root), manifest.id, str(limit_s)]
        with self._lock:
            if self._closed:
                raise IndexInvalid("The server stops, and loads nothing any more.")
            self._child = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is the server's, and no fault of the index
            )
            return self._child

    def close(self) -> None:
        """Ends the child that runs, and starts none any more."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.kill()


def _refusal(directory: Path, status: int, told: bytes) -> IndexInvalid:
    """Why a child ended with this status, having told this."""
    if status == REFUSED:
        code, sentence = json.loads(told)
        return (DimMismatch if code == DimMismatch.code else IndexInvalid)(sentence)
    if status == -signal.SIGALRM:
        return _too_slow(directory)
    how = f"by signal {-status}, {signal.strsignal(-status)}" if status < 0 else f"with exit status {status}"
    return IndexInvalid(f"{directory} ended a process that read it, {how}; it was not read in this one.")


def _too_slow(directory: Path) -> IndexInvalid:
    return IndexInvalid(f"{directory} was not read in the time that a slow disk takes.")


def _bound_process(limit_s: int, index_bytes: int) -> None:
    """Ends this process after a while, whatever happens to its parent; no core dump, and no memory without end."""
    signal.alarm(limit_s)  # ends it in native code too
    for kind, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES + 2 * index_bytes)):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, hard))


def main() -> int:
    """What a child does: exit status 0, or `REFUSED` with code and sentence on standard output."""
    root, version, limit_s = sys.argv[1:]
    index = IndexDirectory(Path(root))
    try:
        manifest = index.manifest(version)
        _bound_process(int(limit_s), manifest.files[INDEX_NAME].bytes)
        read_contents(index.path_of(version), manifest)
    except CarsearchError as problem:
        sys.stdout.write(json.dumps([problem.code, str(problem)]))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
