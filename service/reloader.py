"""Follows CURRENT: loads the version that it names, and switches to it when it verifies."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from indexer.delta import DeltaLog
from indexer.load import marked_as_loading, refuse_too_large
from indexer.memory import available_bytes
from model.errors import CarsearchError, IndexNotFound
from service.directory import open_directory
from service.engine import Engine
from service.observability.metrics import Metrics
from service.process import lower_priority
from service.settings import Settings
from service.verified import Verification, VerifiedVersions

WATCH_INTERVAL_S = 0.2
RETRY_S = 60
AFTER_FAILURE_S = 1
MOST_CHANGES, CHANGES_SHARE, FEWEST_CHANGES = 20_000, 0.05, 1_000
STOP_S = 5
"""How long a server that ends waits for an index that is being loaded; the thread ends with the process."""

NO_INDEX = "There is no index to serve yet."
log = logging.getLogger("carsearch")


def most_changes(photos: int) -> int:
    """How many changes may stand beside a version of so many photos: 5%, but 1,000 to 20,000.

    >>> most_changes(264), most_changes(100_000), most_changes(1_000_000)
    (1000, 5000, 20000)
    """
    return int(min(MOST_CHANGES, max(FEWEST_CHANGES, CHANGES_SHARE * photos)))


class Reloader:
    """Holds the engine of a server process. One thread loads; requests take the engine once and keep it."""

    def __init__(self, settings: Settings, metrics: Metrics, interval_s: float = WATCH_INTERVAL_S) -> None:
        self.settings = settings
        self.metrics = metrics
        self._interval_s = interval_s
        self.index = open_directory(settings.index_dir, settings)
        self.refused_version: str | None = None
        self.loaded: Engine | None = None
        """What answers; a request takes it once and keeps it."""
        self.delta = DeltaLog(settings.delta_dir) if settings.delta_dir else None
        """What is put and deleted, where that may be."""
        self._changing = threading.Lock()
        """Held while `loaded` is replaced."""
        self._delta_problem = ""
        self._verified = VerifiedVersions(self.index, settings.state_dir)
        self._verification: Verification | None = None
        """The check of the loaded version that runs in the background, None where there is none."""
        self._before: Engine | None = None
        """The engine that answered before the loaded one, kept until that check has ended."""
        self.why_not = "The server is loading its index."
        """Why there is nothing to answer with."""
        self.since: datetime | None = None
        """When this process began to answer with what is loaded."""
        self._seen: tuple[str, int] | None = None
        self._retry_at = 0.0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        # Changes are shown while a version loads, which may take minutes.
        watched = {"index-watch": self.look} | ({} if self.delta is None else {"changes-watch": self.follow})
        for name, look in watched.items():
            self._threads.append(threading.Thread(target=self._watch, args=[look], name=name, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(STOP_S)
        if self.delta is not None:
            self.delta.close()

    def _watch(self, look: Callable[[], None]) -> None:
        lower_priority()  # and with it that of the network's threads, which the thread that loads starts
        while not self._stop.is_set():
            wait_s = self._interval_s
            try:
                look()
            except Exception:  # the thread must outlive whatever a bad disk does to it
                log.exception("looking at %s failed", self.index.root)
                wait_s = max(wait_s, AFTER_FAILURE_S)
            self._stop.wait(wait_s)

    def look(self) -> None:
        """Looks at CURRENT once and swaps to what it names if that is new and verifies."""
        self._heed_verification()
        try:
            # The number tells a version published again under its name from one that was refused a moment ago.
            seen = self.index.pointer()
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
        version, previous = seen[0], self.loaded
        if previous is not None and previous.manifest.id == version:
            self._clear()
            return
        try:
            self._load_and_swap(version, previous)
        except Exception as problem:  # a crafted version may raise anything, and is refused like a damaged one
            self._refuse(version, problem)

    def _load_and_swap(self, version: str, previous: Engine | None) -> None:
        """Verifies a version and serves it, or serves it and verifies it meanwhile where it was verified before."""
        state = self._verified.state_of(version)
        at_once = self._verification is None and self._verified.holds(version, state)
        self._swap(self._load(version, previous, at_once))
        self._before = previous if at_once else None
        if at_once:
            self._verification = Verification(self.index, version)
            self._verification.start()
        else:
            self._verified.add(version, state)

    def _heed_verification(self) -> None:
        """Goes back to what answered before, or to nothing, when a version that is served turns out to be damaged."""
        done = self._verification
        if done is None or done.is_alive():
            return
        if done.problem is not None:
            self._verified.forget(done.version)
            if self.loaded is not None and self.loaded.manifest.id == done.version:
                self._take_back(done.version, done.problem)
        self._before = self._verification = None  # last: what fails above is tried again

    def _take_back(self, version: str, problem: Exception) -> None:
        if self._before is not None:
            self._swap(self._before)
        else:
            with self._changing:
                self.loaded = self.since = None
            self.metrics.serve_nothing()
        self._refuse(version, problem)

    def _load(self, version: str, previous: Engine | None, verified: bool) -> Engine:
        refuse_too_large(self.index.path_of(version), self.index.manifest(version), available_bytes())
        with marked_as_loading(self.settings.state_dir, version):
            return Engine.load(
                self.index,
                version,
                model=self.settings.model,
                runtime=self.settings.runtime,
                cache_dir=self.settings.cache_dir,
                gallery_dir=self.settings.gallery_dir,
                delta_dir=self.settings.delta_dir,
                previous=previous,
                verified=verified,
            )

    def follow(self) -> None:
        """Shows what other servers have put and deleted; keeps what it has while the log cannot be read."""
        try:
            if self.delta is not None and (self.delta.has_changed() or self._delta_problem):
                self.refresh()
            self._delta_problem = ""
        except CarsearchError as problem:  # of the log, or of the store that has the vectors of hidden photos
            if self._delta_problem != str(problem):  # told once
                log.error("%s", problem)
            self._delta_problem = str(problem)

    def refresh(self) -> Engine | None:
        """Shows all that was put and deleted by now, and returns what shows it; raises DeltaUnusable."""
        with self._changing:
            if self.loaded is not None:
                self._show(self._caught_up(self.loaded))
            return self.loaded

    def _caught_up(self, engine: Engine) -> Engine:
        return engine if self.delta is None else engine.caught_up(self.delta)

    def _show(self, engine: Engine) -> None:
        self.loaded = engine  # one assignment: a request sees the old pair or the new one
        if self.delta is not None:
            self.metrics.changes.set(engine.changes)
            self.metrics.changes_limit.set(most_changes(len(engine.store)))

    def _swap(self, engine: Engine) -> None:
        engine = self._caught_up(engine)  # may take long, and so without the lock
        with self._changing:
            self._show(self._caught_up(engine))
            self.since = datetime.now(UTC)
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
        root = self.index.root
        way_out = (
            f"To mend it, run carsearch index GALLERY --index {root}, or carsearch versions rollback --index {root}."
        )
        log.error("refused index version %s: %s: %s %s", version, code, problem, way_out, exc_info=not known)
        self.metrics.refusals.inc()  # last: whoever sees the count finds the reason in the log
        self.metrics.refused.set(1)
