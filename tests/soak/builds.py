"""kill -9 of the indexer at random steps and times, beside a server of the same index (case 112)."""

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.errors import CarsearchError
from tests.soak.material import search_for, small_embedder, small_model
from tests.soak.outcome import Extent, Figure, at_most, none_of
from tests.soak.wire import Client, Clients, Reply
from tests.support.calls import metric
from tests.support.servers import Server, clean_environment, running_server
from tests.unit.indexer.sets import assert_clean, items_of, write_photos
from tests.unit.test_layout import ROOT

NAME = "kill -9 of the indexer"

KILLS = {"small": 5, "large": 300}
FINISHED_AFTER = 3
"""After so many kills a build is let finish."""

ALWAYS = [f"{label}/{shot}.jpg" for label in "abcde" for shot in range(8)]
NEW = 6
TURNS_KEPT = 5
SERVED_S = 10
PAUSE_S = 0.1


@dataclass
class _Tally:
    """What was found after the kills, and what the server answered meanwhile; for several threads."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    """Version -> what it holds, as far as it was ever current."""

    old: int = 0
    new: int = 0
    corrupt: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    served_s: list[float] = field(default_factory=list)
    answers: int = 0
    failed: list[str] = field(default_factory=list)
    found: dict[str, set[str]] = field(default_factory=dict)
    """Version -> what was found in it."""

    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, _request: bytes, reply: Reply) -> bool:
        with self._lock:
            self.answers += 1
            if reply.ending != "whole" or reply.status != 200:
                self.failed.append(f"{reply.ending} {reply.status}")
                return True
            answer = json.loads(reply.body)
            found = self.found.setdefault(answer["versions"]["index"], set())
            found |= {hit["id"] for hit in answer["results"]}
        return True

    def foreign(self) -> list[str]:
        """Answers of a version that never was current, or that found what it does not hold."""
        return [version for version, found in self.found.items() if not found <= self.ids.get(version, set())]


@contextmanager
def _builder() -> Iterator[Callable[[list[str], int, float], dict[str, Any]]]:
    """Gives a function that runs `carsearch index` until a step or a time; 0 for both lets it finish."""
    command = [sys.executable, "-m", "tests.soak.killed_builds"]
    environment = {**clean_environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        orders, answers = process.stdin, process.stdout

        def build(arguments: list[str], last: int, delay_s: float) -> dict[str, Any]:
            print(json.dumps({"arguments": arguments, "last": last, "delay_s": delay_s}), file=orders, flush=True)
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield build


def run(extent: Extent, folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """Builds an index of photos that change all the time, kills the builds, and looks at what CURRENT names."""
    index, photos = IndexDirectory(folder / "index"), write_photos(folder / "photos", ALWAYS)
    build_index(photos, index, small_embedder())
    tally = _Tally({index.current(): set(ALWAYS)})
    requests = [search_for((photos / name).read_bytes()) for name in ALWAYS]
    with running_server(index.root, folder / "log", SEARCH_THREADS="1") as server, _builder() as build:
        clients = Clients(httpx.URL(server.url).port or 0, [Client(requests)] * 2, tally.add)
        clients.pause_s = PAUSE_S
        with clients.running():
            _kill_often(KILLS[extent], index, photos, build, server, tally, say)
        refused = round(metric(server, "carsearch_index_refusals_total"))
    foreign = tally.foreign()
    for problem in (tally.corrupt + tally.unfinished + tally.failed + foreign)[:10]:
        say(problem)
    kills, finished = KILLS[extent], f"{len(tally.served_s)} builds that were let finish"
    return [
        none_of("corrupt after a kill", len(tally.corrupt), kills, f"kills; CURRENT old {tally.old}, new {tally.new}"),
        none_of("builds that did not finish afterwards", len(tally.unfinished), len(tally.served_s), "let finish"),
        at_most("slowest switch of the server", max(tally.served_s), SERVED_S, "s", f"after {finished}"),
        none_of("searches failed meanwhile", len(tally.failed), tally.answers, "searches of a server of this index"),
        none_of("versions answered from that never were current", len(foreign), len(tally.found), "versions"),
        none_of("versions that the server refused", refused, len(tally.ids), "versions"),
    ]


def _kill_often(
    kills: int, index: IndexDirectory, photos: Path, build: Callable[[list[str], int, float], dict[str, Any]],
    server: Server, tally: _Tally, say: Callable[[str], None],
) -> None:  # fmt: skip
    chance, turn, killed = random.Random(0), 0, 0
    arguments = [str(photos), "--index", str(index.root), "--model", str(small_model()), "--allow-removals"]
    names = _change(photos, turn)
    usual = _finish(index, build(arguments, 0, 0), names, server, tally)
    while killed < kills:
        turn += 1
        names, old = _change(photos, turn), index.current()
        by_step = turn % 2 == 0
        last = chance.randint(1, len(usual["steps"])) if by_step else 0
        answer = build(arguments, last, 0 if by_step else chance.uniform(0, usual["took_s"]))
        _look(index, old, names, tally)
        if answer["signal"] != signal.SIGKILL:  # it was quicker than usual, or had less to do
            continue
        killed += 1
        if killed % FINISHED_AFTER == 0:
            usual = _finish(index, build(arguments, 0, 0), names, server, tally)
        if killed % 20 == 0:
            say(f"{killed} kills: CURRENT old {tally.old}, new {tally.new}; {tally.answers:,} searches")
    _finish(index, build(arguments, 0, 0), names, server, tally)


def _change(photos: Path, turn: int) -> set[str]:
    """New photos come and old ones go; the names of all that are there."""
    shutil.rmtree(photos / f"turn-{turn - TURNS_KEPT}", ignore_errors=True)
    write_photos(photos, [f"turn-{turn}/{shot}.jpg" for shot in range(NEW)])
    return {path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")}


def _look(index: IndexDirectory, old: str, names: set[str], tally: _Tally) -> None:
    """CURRENT must name a whole version: the old one, or one of all photos there are."""
    try:
        current = index.current()
        index.verify(current)
        held = set(items_of(index))
    except (CarsearchError, OSError) as problem:
        tally.corrupt.append(str(problem))
        return
    if current == old:
        tally.old += 1
        return
    tally.new += 1
    tally.ids[current] = held
    if held != names:
        tally.corrupt.append(f"{current} holds {len(held)} photos of {len(names)}")


def _finish(
    index: IndexDirectory, answer: dict[str, Any], names: set[str], server: Server, tally: _Tally
) -> dict[str, Any]:
    """What must hold after a build that nobody killed; returns its answer."""
    finished = time.monotonic()
    try:
        assert (answer["signal"], answer["status"]) == (0, 0), f"it ended with {answer['status']}"
        assert_clean(index)
        tally.ids[index.current()] = set(items_of(index))
        assert tally.ids[index.current()] == names, "it holds other photos"
    except (CarsearchError, AssertionError) as problem:
        tally.unfinished.append(str(problem))
    while _served(server) != index.current() and time.monotonic() - finished < SERVED_S + 1:
        time.sleep(0.02)
    tally.served_s.append(time.monotonic() - finished)
    return answer


def _served(server: Server) -> str:
    version: str = server.client.get("/info").json()["versions"]["index"]
    return version
