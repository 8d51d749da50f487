"""Mutated uploads: tens of thousands of damaged photos and sets, and the server stands as before (case 044).

Photos come in every way in turn. Each is made from its seed; `python -m tests.support.mutants SEED` makes one again.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.procfs import resident_bytes
from tests.e2e.catalogue.standing import MAX_GROWTH, Standing
from tests.soak.outcome import Extent, Figure, at_most, none_of
from tests.support import mutants
from tests.support.demo_index import demo_index
from tests.support.servers import Server, running_server
from tests.support.ways import WAYS, upload_by

NAME = "mutated uploads"

UPLOADS = {"small": 300, "large": 50_000}
WARM = {"small": 100, "large": 5_000}
"""So many of them come before the memory at rest is taken: every decoder has been used then, by every thread."""

CLIENTS = 4
SETS_EVERY = 25
"""Of so many uploads one is an archive."""

ALLOWED = {200, 400, 413, 415, 422}
"""No 429: there are fewer clients than places in the queue."""

DEADLINE_S = 10
SETTLE_S = 1


@dataclass
class _Tally:
    """What the uploads were answered with; for several threads."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    crashes: int = 0
    slowest_s: float = 0
    slowest: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, mutant: mutants.Mutant, way: str, status: int | None, took_s: float) -> None:
        """Counts an answer; `status` is None where there was none, and that of the photo in a batch."""
        about = f"{way} seed {mutant.seed} ({mutant.what})"
        with self._lock:
            if took_s > self.slowest_s:
                self.slowest_s, self.slowest = took_s, about
            if status is None:
                self.crashes += 1
            else:
                self.statuses[status] += 1
            if status not in ALLOWED:
                self.wrong.append(f"{about}: {status or 'no answer'}")


@dataclass(frozen=True, slots=True)
class _Memory:
    """Resident bytes before any upload, after the first of them, and at the end."""

    cold: int
    rest: int
    end: int

    @property
    def growth(self) -> float:
        """Above rest, as a part of it; NaN when the server could not be asked."""
        return self.end / self.rest - 1 if self.rest and self.end else float("nan")

    def how(self, warm: int) -> str:
        cold, rest, end = (f"{value / 1e6:.0f}" for value in (self.cold, self.rest, self.end))
        return f"{end} MB; {rest} after the first {warm:,}, {cold} before any"


def run(extent: Extent, folder: Path, say: Callable[[str], None], first_seed: int = 0) -> list[Figure]:
    """Sends mutants of `first_seed` and those that follow, and compares the server with what it was before."""
    spool = folder / "spool"
    spool.mkdir()
    settings = {"SPOOL_DIR": str(spool), "SEARCH_THREADS": "2", "REQUEST_DEADLINE_S": str(DEADLINE_S)}
    with running_server(demo_index(folder).root, folder / "log", True, **settings) as server:
        standing = Standing(server, spool)
        before = standing.answers()
        seeds, tally = range(first_seed, first_seed + UPLOADS[extent]), _Tally()
        _send(server, seeds[: WARM[extent]], tally, say)
        rest = _at_rest(standing)
        _send(server, seeds[WARM[extent] :], tally, say)
        unharmed = _unharmed(standing)
        memory = _Memory(standing.resident_bytes, rest, _at_rest(standing))
        counted = sum(standing.answers().values()) - sum(before.values()) if not unharmed else 0
    for wrong in tally.wrong[:20]:
        say(wrong)
    return _figures(extent, tally, unharmed, memory, counted)


def _figures(extent: Extent, tally: _Tally, unharmed: str, memory: "_Memory", counted: float) -> list[Figure]:
    uploads = UPLOADS[extent]
    answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(tally.statuses.items()))
    failures = sum(count for status, count in tally.statuses.items() if status >= 500)
    first = f"; the first: {tally.wrong[0]}" if tally.wrong else ""
    return [
        none_of("answers of 5xx", failures, uploads, "mutated uploads"),
        none_of("crashes, or no answer", tally.crashes, uploads, "mutated uploads"),
        none_of("answers that are not allowed", len(tally.wrong), uploads, f"mutated uploads: {answers}{first}"),
        Figure("the same process finds the same", unharmed or "yes", "yes", not unharmed, "threads, files, disk too"),
        Figure("every upload is counted", f"{counted:,.0f}", f">= {uploads:,}", counted >= uploads, "in the metrics"),
        at_most("memory above rest", 100 * memory.growth, 100 * MAX_GROWTH, "%", memory.how(WARM[extent])),
        at_most("slowest answer", tally.slowest_s, DEADLINE_S, "s", tally.slowest),
    ]


def _send(server: Server, seeds: range, tally: _Tally, say: Callable[[str], None]) -> None:
    remaining = iter(seeds)  # a range's iterator may be shared by threads
    one_set = threading.Lock()  # sets are evaluated one at a time, and another one meanwhile is refused

    def client(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=6 * DEADLINE_S) as http:
            for seed in remaining:
                if server.process.poll() is not None:
                    tally.add(mutants.photo(seed), "none", None, 0)
                elif seed % SETS_EVERY == 0:
                    with one_set:
                        _upload(http, tally, "archive", mutants.archive(seed))
                else:
                    _upload(http, tally, WAYS[seed % len(WAYS)], mutants.photo(seed))
                if seed and seed % 5000 == 0:
                    say(f"seed {seed:,}, {len(tally.wrong)} wrong answers (client {number})")

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(client, range(CLIENTS)))


def _upload(http: httpx.Client, tally: _Tally, way: str, mutant: mutants.Mutant) -> None:
    started = time.perf_counter()
    status: int | None = None
    with contextlib.suppress(httpx.TransportError):  # no answer is an answer too
        if way == "archive":
            response = http.post("/evaluate", files={"archive": ("upload", mutant.data)})
        else:
            sent = upload_by(way, mutant.data)
            response = http.post(sent.path, **sent.arguments)
        status = response.status_code
        if way == "batch" and status == 200:
            (entry,) = response.json()["results"]
            status = 200 if "result" in entry else entry["problem"]["status"]
    tally.add(mutant, way, status, time.perf_counter() - started)


def _unharmed(standing: Standing) -> str:
    """What is not as it was, in a sentence; empty when everything is."""
    try:
        standing.assert_stands()
    except (AssertionError, httpx.HTTPError) as problem:
        return str(problem)[:200] or type(problem).__name__
    return ""


def _at_rest(standing: Standing) -> int:
    """Resident memory of a server at rest; 0 when it cannot be asked."""
    try:
        for _ in range(50):  # what a thread holds it gives back when it next decodes
            standing.probe()
        time.sleep(SETTLE_S)
        return resident_bytes(standing.pid)
    except (AssertionError, OSError, httpx.HTTPError):
        return 0
