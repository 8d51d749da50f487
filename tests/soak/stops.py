"""SIGTERM again and again with requests in flight: none is lost behind the proxy, none is cut off (case 128)."""

import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from indexer.build import build_index
from indexer.versions import IndexDirectory
from service.http.server import GRACE_S
from tests.deploy.nginx import NGINX, running_nginx
from tests.deploy.replicas import SETTINGS, Replica, running_replicas
from tests.soak.material import Known, car_photos, small_embedder
from tests.soak.outcome import Extent, Figure, at_most, none_of
from tests.soak.wire import Client, Clients, Reply, fetch
from tests.support.photos import write_gallery
from tests.support.servers import clean_environment

NAME = "SIGTERM with requests in flight"

BEHIND_PROXY = {"small": 2, "large": 100}
ALONE = {"small": 2, "large": 100}
IN_FLIGHT = 50
PAUSE_S = 2.0
"""Between two requests of a client while a replica starts, which would take long beside 50 that never pause."""

DRAINS_S = ("0", "0.3")
LARGE_FILE = "/static-offline-docs/swagger-ui-bundle.js"
"""More than a megabyte: what a slow reader is in the middle of."""

WAIT_S = 60


@dataclass
class _Tally:
    """Replies that were right, and those that were not; for several threads."""

    known: Known
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, request: bytes, reply: Reply) -> bool:
        """Counts a reply of a client that must always be answered."""
        problem = self.problem(request, reply)
        with self._changed:
            self.right += not problem
            if problem:
                self.wrong.append(problem)
            self._changed.notify_all()
        return True

    def problem(self, request: bytes, reply: Reply) -> str:
        """What is wrong with a reply; empty when it is whole and right."""
        if reply.ending != "whole":
            return f"the connection ended: {reply.ending}"
        if reply.status != 200:
            return f"{reply.status} {reply.body[:200]!r}"
        return "" if request.startswith(b"GET") else self.known.problem(request, reply.body)

    def wait_for_more(self, count: int) -> None:
        """Waits until so many more requests have ended."""
        with self._changed:
            wanted = self.right + len(self.wrong) + count
            if not self._changed.wait_for(lambda: self.right + len(self.wrong) >= wanted, WAIT_S):
                raise AssertionError(f"nobody is answered any more; {self.wrong[:3]}")


def run(extent: Extent, folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """Replicas behind nginx stopped in turn, then single servers without it, all with 50 clients that keep asking."""
    index = IndexDirectory(folder / "index")
    version = build_index(write_gallery(folder / "gallery", 4, 5), index, small_embedder()).version
    known = Known.of(index, [version], car_photos(range(8)))
    proxied = _behind_proxy(BEHIND_PROXY[extent], index.root, folder, known, say)
    if not proxied and extent == "large":
        proxied = [Figure("requests lost behind the proxy", "not measured: nginx is not installed", "0", False)]
    return proxied + _alone(ALONE[extent], index.root, folder, known, say)


def _behind_proxy(cycles: int, index: Path, folder: Path, known: Known, say: Callable[[str], None]) -> list[Figure]:
    """Nothing when nginx is not installed."""
    if NGINX is None:
        say("nginx is not installed: nothing is stopped behind it")
        return []
    tally, slowest_s = _Tally(known), 0.0
    with (
        running_replicas(index, folder, 3) as replicas,
        running_nginx(folder / "nginx", [replica.port for replica in replicas]) as nginx,
    ):
        clients = Clients(nginx.port, [Client(known.requests)] * IN_FLIGHT, tally.add)
        with clients.running():
            for turn, replica in enumerate(islice(cycle(replicas), cycles), 1):
                clients.pause_s = 0
                tally.wait_for_more(3 * IN_FLIGHT)
                started = time.monotonic()
                assert replica.end(signal.SIGTERM) == -signal.SIGTERM
                slowest_s = max(slowest_s, time.monotonic() - started)
                tally.wait_for_more(IN_FLIGHT)
                clients.pause_s = PAUSE_S
                replica.start()
                if turn % 10 == 0:
                    say(f"{turn} replicas stopped, {tally.right:,} requests answered, {len(tally.wrong)} not")
        tried_again = sum("," in line["upstream"] for line in nginx.log)
    for wrong in tally.wrong[:10]:
        say(wrong)
    how = f"searches, {IN_FLIGHT} in flight, {cycles} stops of one of 3 replicas, drain of {SETTINGS['DRAIN_S']} s"
    return [
        none_of("requests lost behind the proxy", len(tally.wrong), tally.right, f"{how}; {tried_again} tried again"),
        at_most("slowest end behind the proxy", slowest_s, GRACE_S, "s", "from SIGTERM to the end of the process"),
    ]


@dataclass
class _Stops:
    """What the clients of all single servers came to."""

    received: int = 0
    lost: list[str] = field(default_factory=list)
    cut: int = 0
    wrong: list[str] = field(default_factory=list)
    late: int = 0
    """Requests sent after SIGTERM that got no byte of an answer: nothing is promised to them."""

    slowest_s: float = 0
    statuses: list[int] = field(default_factory=list)


def _alone(cycles: int, index: Path, folder: Path, known: Known, say: Callable[[str], None]) -> list[Figure]:
    """A server without a proxy, with and without a drain in turn, as in docs/settings.md."""
    stops, chance = _Stops(), random.Random(0)
    for turn in range(cycles):
        environment = clean_environment(DRAIN_S=DRAINS_S[turn % len(DRAINS_S)], CACHE_DIR=str(folder / "cache"))
        server = Replica(index, folder / "alone.log", environment=environment)
        try:
            server.start()
            _stop_once(server, known, chance, stops)
        finally:
            if server.process is not None and server.process.poll() is None:
                server.end(signal.SIGKILL)
        if turn % 10 == 9:
            say(f"{turn + 1} servers stopped: {len(stops.lost)} lost, {stops.cut} cut off, {stops.late} too late")
    for problem in (stops.lost + stops.wrong)[:10]:
        say(problem)
    ended_otherwise = sum(status not in (-signal.SIGTERM, 0) for status in stops.statuses)
    how = f"requests, {IN_FLIGHT} in flight, {cycles} stops without a proxy"
    return [
        none_of("received before SIGTERM and not answered", len(stops.lost), stops.received, how),
        none_of("answers cut off", stops.cut, stops.received, f"{how}; {stops.late} sent later got no byte"),
        none_of("answers other than 200, or wrong", len(stops.wrong), stops.received, how),
        none_of("servers that ended otherwise", ended_otherwise, cycles, "stops"),
        at_most("slowest end without a proxy", stops.slowest_s, GRACE_S, "s", "from SIGTERM to the end of the process"),
    ]


def _stop_once(server: Replica, known: Known, chance: random.Random, stops: _Stops) -> None:
    """Sends SIGTERM when all clients have a request in flight, and counts how each of the last ones ended."""
    tally, replies, lock = _Tally(known), list[tuple[bytes, Reply]](), threading.Lock()

    def on_reply(request: bytes, reply: Reply) -> bool:
        with lock:
            replies.append((request, reply))
        tally.add(request, reply)
        return reply.ending != "refused"

    clients = Clients(server.port, _kinds(known), on_reply)
    with clients.running():
        tally.wait_for_more(2 * IN_FLIGHT)
        time.sleep(chance.uniform(0, 0.2))
        stopped_at = time.monotonic()
        stops.statuses.append(server.end(signal.SIGTERM))
        stops.slowest_s = max(stops.slowest_s, time.monotonic() - stopped_at)
    for request, reply in replies:
        before = reply.sent_at is not None and reply.sent_at < stopped_at
        stops.received += before
        if reply.ending == "cut":
            stops.cut += 1
        elif reply.ending == "whole":
            stops.wrong += filter(None, [tally.problem(request, reply)])
        elif before:
            stops.lost.append(f"{request[:40]!r} was sent {stopped_at - (reply.sent_at or 0):.4f} s before SIGTERM")
        else:
            stops.late += reply.ending == "none"


def _kinds(known: Known) -> list[Client]:
    """Clients that keep their connections and clients that do not; two read slowly what is large."""
    large = Client([fetch(LARGE_FILE)], read_pause_s=0.02)
    others = [Client(known.requests, keeps=number % 2 == 0) for number in range(IN_FLIGHT - 2)]
    return [large, large, *others]
