"""kill -9 of a server under load and while it starts: nothing is corrupt, and it is soon back (case 127)."""

import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.errors import CarsearchError
from service.jobs import LOST_S
from tests.deploy.replicas import Replica
from tests.soak.material import Known, car_photos, small_embedder
from tests.soak.outcome import Extent, Figure, at_most, none_of
from tests.soak.wire import Client, Clients, Reply, Wire, upload
from tests.support.bodies import members_of, zip_of
from tests.support.photos import write_gallery
from tests.support.servers import clean_environment

NAME = "kill -9 of the server"

KILLS = {"small": 5, "large": 300}
SEARCHERS = 6
IN_START = 5
"""One kill of so many comes while the server starts."""

LONGEST_START_S = 1.5
LONGEST_LIFE_S = 0.8
READY_S = {"small": 120, "large": 10}  # in small it only says that nothing hangs


@dataclass
class _Tally:
    """What was found after the kills."""

    ready_s: list[float] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    probe: list[Any] = field(default_factory=list)
    answered: int = 0


def run(extent: Extent, folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """Starts a server, asks and evaluates, kills it, looks at what it left, and starts it again on the same port."""
    index = IndexDirectory(folder / "index")
    gallery = write_gallery(folder / "gallery", 4, 5)
    version = build_index(gallery, index, small_embedder()).version
    known = Known.of(index, [version], car_photos(range(8)))
    archive = zip_of(members_of(gallery))
    places = _Places.make(folder)
    server = Replica(index.root, folder / "log", environment=places.environment)
    tally, chance = _Tally(), random.Random(0)
    kills = KILLS[extent]
    try:
        for turn in range(1, kills + 1):
            _live(server, turn, known, archive, places, chance, tally)
            tally.corrupt += _damage(index, places)
            places.grow_old()
            if turn % 20 == 0:
                say(f"{turn} kills, the slowest start took {max(tally.ready_s, default=0):.1f} s")
        _start(server, known, tally)  # after the last kill too
    finally:
        if server.process is not None and server.process.poll() is None:
            server.end(signal.SIGKILL)
    for problem in (tally.corrupt + tally.other + tally.wrong + tally.left)[:10]:
        say(problem)
    starts = f"{len(tally.ready_s)} starts, median {statistics.median(tally.ready_s):.1f} s"
    return [
        none_of("corrupt after a kill", len(tally.corrupt), kills, "kills: index, records of evaluations"),
        at_most("slowest start to ready", max(tally.ready_s), READY_S[extent], "s", starts),
        none_of("other answers after a start", len(tally.other), len(tally.ready_s), "starts, ids and scores"),
        none_of("wrong answers before a kill", len(tally.wrong), tally.answered, "searches"),
        none_of("files left behind", len(tally.left), kills, "kills: spool, state and temporary directory"),
    ]


@dataclass(frozen=True)
class _Places:
    """Where a server may write; nothing else of the machine is its own."""

    spool: Path
    state: Path
    temporary: Path
    cache: Path

    @classmethod
    def make(cls, folder: Path) -> "_Places":
        made = [folder / name for name in ("spool", "state", "temporary", "cache")]
        for path in made:
            path.mkdir()
        return cls(*made)

    @property
    def environment(self) -> dict[str, str]:
        settings = {"SPOOL_DIR": str(self.spool), "CACHE_DIR": str(self.cache), "STATE_DIR": str(self.state)}
        return {**clean_environment(**settings), "TMPDIR": str(self.temporary)}

    @property
    def of_evaluations(self) -> list[Path]:
        return sorted((self.state / "evaluations").glob("*"))

    def grow_old(self) -> None:
        """As if what a killed server has left had lain there for a while: so old the next one may remove it."""
        then = time.time() - 2 * LOST_S
        for path in (*self.of_evaluations, *self.temporary.iterdir()):
            os.utime(path, (then, then))

    def left(self) -> list[str]:
        """What nobody needs, while one server runs."""
        records = {path.stem for path in self.of_evaluations if path.suffix == ".json"}
        found = [one for one in self.of_evaluations if one.suffix == ".tmp" or one.stem not in records]
        return [path.name for path in (*found, *self.spool.iterdir(), *self.temporary.iterdir())]


def _live(
    server: Replica, turn: int, known: Known, archive: bytes, places: _Places, chance: random.Random, tally: _Tally
) -> None:
    """One life of a server, from its start to its kill."""
    if turn % IN_START == 0:
        server.begin()
        time.sleep(chance.uniform(0, LONGEST_START_S))
        server.end(signal.SIGKILL)
        return
    _start(server, known, tally)
    tally.left += places.left()

    def on_reply(request: bytes, reply: Reply) -> bool:
        if request in known.requests and reply.ending == "whole":
            problem = known.problem(request, reply.body) if reply.status == 200 else f"{reply.status}"
            tally.answered += 1
            tally.wrong += filter(None, [problem])
        return reply.ending == "whole"

    at_once = upload("/evaluate", archive, "archive")
    in_background = upload("/evaluate", archive, "archive", "Prefer: respond-async\r\n")
    clients = [Client(known.requests)] * SEARCHERS + [Client([at_once, in_background])]
    with Clients(server.port, clients, on_reply).running():
        time.sleep(chance.uniform(0, LONGEST_LIFE_S))
        server.end(signal.SIGKILL)


def _start(server: Replica, known: Known, tally: _Tally) -> None:
    """Starts a server, and compares its first answers with those of the first start."""
    started = time.monotonic()
    server.start()
    tally.ready_s.append(time.monotonic() - started)
    wire = Wire(server.port)
    found = []
    for request in known.requests:
        answer = json.loads(wire.ask(request).body)
        found.append([(hit["id"], hit["score"]) for hit in answer["results"]])
    wire.close()
    tally.probe = tally.probe or found
    if found != tally.probe:
        tally.other.append(f"start {len(tally.ready_s)} finds something else")


def _damage(index: IndexDirectory, places: _Places) -> list[str]:
    """What is wrong with the index and with the records of evaluations."""
    found = []
    try:
        index.verify(index.current())
    except CarsearchError as problem:
        found.append(str(problem))
    for path in (one for one in places.of_evaluations if one.suffix == ".json"):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            found.append(f"{path.name} is no record")
    return found
