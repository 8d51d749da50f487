"""Index versions swapped all the time under searches: none is lost, none is answered from two versions (case 106)."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.load import percentile
from bench.procfs import resident_bytes
from indexer.build import build_index
from indexer.versions import IndexDirectory
from tests.soak.material import Known, car_photos, small_embedder
from tests.soak.outcome import Extent, Figure, at_most, none_of
from tests.soak.wire import Client, Clients, Reply
from tests.support.calls import metric
from tests.support.photos import write_gallery
from tests.support.servers import Server, running_server

NAME = "index swaps under load"

SWAPS = {"small": 12, "large": 1_000}
REQUESTS_A_SWAP = {"small": 40, "large": 100}
QUIET_REQUESTS = {"small": 300, "large": 2_000}
WARM_SWAPS = 4
"""Before memory is measured first: then both versions have been served."""

CLIENTS = 6
WAIT_S = 60
FREED_S = 30
MAX_GROWTH = 0.05


@dataclass
class _Tally:
    """What the replies were; for several threads."""

    known: Known
    requests: int = 0
    took_ms: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    latest: str = ""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, request: bytes, reply: Reply) -> bool:
        """Counts a reply; the client goes on whatever it was."""
        right = reply.ending == "whole" and reply.status == 200
        problem = self.known.problem(request, reply.body) if right else ""
        with self._changed:
            self.requests += 1
            if reply.ending != "whole":
                self.lost.append(f"{reply.ending} at request {self.requests}")
            elif not right:
                self.other.append(f"{reply.status} {reply.body[:200]!r}")
            elif problem:
                self.mixed.append(problem)
            else:
                self.took_ms.append(reply.took_ms)
                self.latest = next(name for name in self.known.answers if name.encode() in reply.body)
            self._changed.notify_all()
        return True

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, WAIT_S):
                raise AssertionError(f"never happened: {what}; {self.lost[:1] + self.other[:1] + self.mixed[:1]}")

    def wait_for_more(self, count: int) -> None:
        """Waits until so many more requests have ended."""
        wanted = self.requests + count
        self.wait_for(lambda: self.requests >= wanted, f"{count} more requests")

    def taken_ms(self) -> list[float]:
        """Times of the answers since it was last asked, sorted."""
        with self._changed:
            taken, self.took_ms = sorted(self.took_ms), []
        return taken


def run(extent: Extent, folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """Switches CURRENT back and forth between two galleries that share no photo, and checks every answer."""
    index = IndexDirectory(folder / "index")
    galleries = [write_gallery(folder / str(kind), 4, 5, first_kind=kind) for kind in (1, 11)]
    versions = [build_index(gallery, index, small_embedder()).version for gallery in galleries]
    tally = _Tally(Known.of(index, versions, car_photos(range(1, 21))))
    with running_server(index.root, folder / "log") as server:
        clients = Clients(_port(server), [Client(tally.known.requests)] * CLIENTS, tally.add)
        with clients.running():
            tally.wait_for_more(QUIET_REQUESTS[extent])
            quiet_ms = tally.taken_ms()
            for turn in range(WARM_SWAPS):
                _swap(index, versions[turn % 2], tally, REQUESTS_A_SWAP[extent])
            before, held = metric(server, "carsearch_index_swaps_total"), _held(server)
            tally.taken_ms()
            for turn in range(SWAPS[extent]):
                _swap(index, versions[turn % 2], tally, REQUESTS_A_SWAP[extent])
                if turn % 100 == 99:
                    say(f"{turn + 1:,} swaps, {tally.requests:,} requests")
            swapped_ms = tally.taken_ms()
        swaps = round(metric(server, "carsearch_index_swaps_total") - before)
        growth, files = _growth(server, held[0]), _held(server)[1] - held[1]
    for problem in (tally.lost + tally.other + tally.mixed)[:10]:
        say(problem)
    p99, wanted = f"{percentile(swapped_ms, 99):.1f} ms", SWAPS[extent]
    return [
        none_of("requests lost", len(tally.lost), tally.requests, f"searches, {CLIENTS} clients"),
        none_of("answers other than 200", len(tally.other), tally.requests, "searches"),
        none_of("answers that mix versions", len(tally.mixed), tally.requests, "searches; ids, scores checked"),
        Figure("swaps that the server counts", f"{swaps:,}", f"{wanted:,}", swaps == wanted, "in the metrics"),
        at_most("memory above before", 100 * growth, 100 * MAX_GROWTH, "%", f"resident, {FREED_S} s later at most"),
        at_most("open files above before", files, 0, ""),
        Figure("p99 of a search meanwhile", p99, "", True, f"{percentile(quiet_ms, 99):.1f} ms without swaps"),
    ]  # fmt: skip


def _swap(index: IndexDirectory, version: str, tally: _Tally, requests: int) -> None:
    """Switches, waits until an answer comes from the version, and for some more requests."""
    index.switch(version)
    tally.wait_for(lambda: tally.latest == version, f"{version} is served")
    tally.wait_for_more(requests)


def _port(server: Server) -> int:
    return httpx.URL(server.url).port or 0


def _held(server: Server) -> tuple[int, int]:
    """Resident memory in bytes, and open files."""
    pid = server.process.pid
    return resident_bytes(pid), len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _growth(server: Server, before_bytes: int) -> float:
    """Memory above what it was, as a part of that, as soon as it is little enough."""
    deadline = time.monotonic() + FREED_S
    while (growth := _held(server)[0] / before_bytes - 1) > MAX_GROWTH and time.monotonic() < deadline:
        time.sleep(0.5)
    return growth
