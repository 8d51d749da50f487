"""Follows CURRENT: loads the version that it names, and switches to it when it verifies."""

import faulthandler
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.manifest import INDEX_NAME, ITEMS_NAME
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.errors import CarsearchError, IndexInvalid, IndexNotFound, IndexTooLarge
from service.engine import Engine
from service.observability.memory import available_bytes
from service.observability.metrics import Metrics
from service.process import lower_priority, return_free_memory
from service.settings import Settings

WATCH_INTERVAL_S = 0.2
TRIM_INTERVAL_S = 30
"""How often free memory is given back: seldom enough for nobody to notice."""

RETRY_S = 60
STOP_S = 5
"""How long a server that ends waits for an index that is being loaded; the thread ends with the process."""

BESIDE_BYTES = 100 << 20
"""What loading takes beside the index itself: blocks of rows that are checked."""

NO_INDEX = "There is no index to serve yet."
log = logging.getLogger("carsearch")


class Reloader:
    """Holds the engine of a server process. One thread loads; requests take the engine once and keep it."""

    def __init__(self, settings: Settings, metrics: Metrics, interval_s: float = WATCH_INTERVAL_S) -> None:
        self.settings = settings
        self.metrics = metrics
        self._interval_s = interval_s
        self.index = IndexDirectory(settings.index_dir)
        self.refused_version: str | None = None
        self.loaded: Engine | None = None
        """What answers; a request takes it once and keeps it."""
        self.why_not = "The server is loading its index."
        """Why there is nothing to answer with."""
        self._seen: tuple[str, int] | None = None
        self._retry_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="index-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(STOP_S)

    def _watch(self) -> None:
        lower_priority()  # and with it that of the network's threads, which this one starts
        trimmed = time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() - trimmed > TRIM_INTERVAL_S:
                return_free_memory()
                trimmed = time.monotonic()
            try:
                self.look()
            except Exception:  # the thread must outlive whatever a bad disk does to it
                log.exception("looking at %s failed", self.index.root)
            self._stop.wait(self._interval_s)

    def look(self) -> None:
        """Looks at CURRENT once and swaps to what it names if that is new and verifies."""
        try:
            version = self.index.current()
            # The time tells a version published again under its name from one that was refused a moment ago.
            seen = (version, (self.index.root / CURRENT_NAME).stat().st_mtime_ns)
        except (IndexNotFound, OSError) as problem:
            if self.why_not != NO_INDEX:
                log.warning("%s", problem)
            self.why_not = NO_INDEX
            return
        except CarsearchError as problem:
            self._refuse("CURRENT", problem)
            return
        refused = self.refused_version is not None
        if seen == self._seen and not (refused and time.monotonic() >= self._retry_at):
            return
        self._seen = seen
        previous = self.loaded
        if previous is not None and previous.manifest.id == version:
            self._clear()
            return
        try:
            engine = self._load(version, previous)
        except Exception as problem:  # a crafted version may raise anything, and is refused like a damaged one
            self._refuse(version, problem)
            return
        self._swap(engine)

    def _load(self, version: str, previous: Engine | None) -> Engine:
        self._refuse_too_large(version)
        with _marked_as_loading(self.settings.state_dir, version):
            return Engine.load(
                self.index,
                version,
                model=self.settings.model,
                runtime=self.settings.runtime,
                cache_dir=self.settings.cache_dir,
                gallery_dir=self.settings.gallery_dir,
                previous=previous,
            )

    def _refuse_too_large(self, version: str) -> None:
        """Raises IndexTooLarge before a byte is read of what has no room beside the version that serves meanwhile."""
        files = self.index.manifest(version).files
        needed = files[INDEX_NAME].bytes + files[ITEMS_NAME].bytes + BESIDE_BYTES
        available = available_bytes()
        if needed > available:
            raise IndexTooLarge(
                f"{self.index.path_of(version)} takes {needed >> 20} MiB of memory while it is loaded, and "
                f"{int(available) >> 20} MiB are free; give the server more, or index fewer photos."
            )

    def _swap(self, engine: Engine) -> None:
        self.loaded = engine  # one assignment: a request sees the old pair or the new one
        self._clear()
        self.metrics.serve(engine.manifest, engine.embedder.runtime)
        log.info("serving index version %s: %d photos", engine.manifest.id, len(engine.store))

    def _clear(self) -> None:
        self.refused_version = None
        self.metrics.refused.set(0)

    def _refuse(self, version: str, problem: Exception) -> None:
        if self.refused_version == version == "CURRENT":
            return  # an unreadable CURRENT is looked at again and again, but told once
        self.refused_version = version
        self._retry_at = time.monotonic() + RETRY_S  # the disk may have had a bad moment
        self.why_not = "The index cannot be served; the server's log says why."
        known = isinstance(problem, CarsearchError | OSError)
        code = getattr(problem, "code", type(problem).__name__)
        way_out = f"To mend {self.index.root}, run carsearch index again, or with --rollback."
        log.error("refused index version %s: %s: %s %s", version, code, problem, way_out, exc_info=not known)
        self.metrics.refusals.inc()  # last: whoever sees the count finds the reason in the log
        self.metrics.refused.set(1)


@contextmanager
def _marked_as_loading(state_dir: Path | None, version: str) -> Iterator[None]:
    """Leaves a mark in the state directory while a version is loaded, and refuses one that has crashed a server.

    FAISS, SQLite and OpenVINO read files in native code. When they crash the process, Python's fault handler writes
    where it was into the mark. No server that starts later loads the version: a volume that outlives an upgrade of
    FAISS cannot crash every replica for ever. A process that is killed leaves an empty mark, and the next one tries
    again.
    """
    if state_dir is None:
        yield
        return
    mark = state_dir / "loading" / version
    mark.parent.mkdir(exist_ok=True)
    if mark.exists() and mark.stat().st_size:
        raise IndexInvalid(
            f"A server crashed while it loaded index version {version}; build the index again, or delete {mark} to "
            "have it tried once more."
        )
    with mark.open("a") as file:  # replicas that load at the same time share it
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.enable()
            mark.unlink(missing_ok=True)
