"""Photos put and deleted on two servers that are killed all the time, beside folds, rebuilds, rollbacks and restores.

A plain dictionary says what must be there. Each photo that is put has a class of its own, so that an old one is known.
"""

import multiprocessing
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx

from bench.load import percentile
from indexer.build import build_index
from indexer.delta import LOG_NAME, DeltaLog
from indexer.fold import fold_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import ModelMismatch
from tests.conftest import write_fake_model
from tests.deploy.replicas import Replica
from tests.soak.outcome import Extent, Figure, at_most, none_of
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import clean_environment

NAME = "changes under kill -9"

OPERATIONS = {"small": 80, "large": 1_000}
VISIBLE_MS = {"small": 1_000, "large": 20}  # in small it only says that nothing hangs
KILL_S = 1.0, 4.0
JOB_S = 0.5, 4.0
"""When a fold or rebuild is killed, from its start; those that end before are whole."""

WAIT_S = 30
IDS = [
    *(f"car {kind}/{shot}.jpg" for kind in (1, 2) for shot in range(4)),
    *(f"new/{number}.jpg" for number in range(12)),
]
KEY = "admin-0123456789abc"
WEIGHTS = {
    "put": 40, "put_many": 5, "delete": 22, "search": 15, "fold": 4, "rebuild": 4, "roll_back": 4,
    "change_the_folder": 2, "back_up": 2, "restore": 1, "change_the_model": 1,
}  # fmt: skip
Gallery = dict[str, str]
"""Id -> class."""


@dataclass
class _Tally:
    """What was found, and how often each thing was done."""

    done: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    took_ms: list[float] = field(default_factory=list)
    problems: dict[str, list[str]] = field(
        default_factory=lambda: {name: [] for name in ("lost", "doubled", "missing", "back", "other")}
    )


def run(extent: Extent, folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """Does as many operations, in an order of chance, and looks at both servers after most of them."""
    tally, wanted = _Tally(), OPERATIONS[extent]
    with _Shop.running(folder, tally) as shop:
        for number in range(1, wanted + 1):
            name = shop.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            tally.done[name] += 1
            getattr(shop, name)()
            if name not in ("put", "put_many", "search") or number % 10 == 0 or number == wanted:
                shop.check(name)
            if number % 50 == 0:
                say(f"{number:,} operations, {tally.kills} kills")
    for kind, found in tally.problems.items():
        for problem in found[:5]:
            say(f"{kind}: {problem}")
    about = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in tally.done.most_common())
    p50 = percentile(sorted(tally.took_ms), 50)
    named = {"lost": "acknowledged changes lost", "back": "deleted photos that came back", "other": "other answers"}
    return [
        *(
            none_of(named.get(kind, f"photos {kind}"), len(found), wanted, f"operations, {tally.kills} kills")
            for kind, found in tally.problems.items()
        ),
        at_most("p50 from a put to its photo being found", p50, VISIBLE_MS[extent], "ms", about),
    ]


class _Shop:
    """A gallery, its index and log, two servers, and what they must show."""

    def __init__(self, folder: Path, tally: _Tally) -> None:
        self.folder, self.tally, self.chance = folder, tally, random.Random(7)
        self.index = IndexDirectory(folder / "index")
        write_gallery(folder / "gallery", classes=2, photos=4, first_kind=1)
        for crop in (32, 48):
            write_fake_model(folder / f"model-{crop}", crop=crop)
        (folder / "keys").write_text(f"{KEY} shop admin\n")
        self.crop = 32
        self.changed: dict[str, str | None] = {}
        self.indexed: dict[str, Gallery] = {}
        self.backup: tuple[dict[str, str | None], dict[str, Gallery]] | None = None
        self.job("rebuild", whole=True)
        names = {"KEYS_FILE": str(folder / "keys"), "DELTA_DIR": str(folder / "delta"), "RUNTIME": "fake"}
        environment = clean_environment(**names, SEARCH_THREADS="1")
        self.servers = [Replica(self.index.root, folder / f"log-{n}", environment=environment) for n in range(2)]
        self.clients = [httpx.Client(base_url=f"http://127.0.0.1:{one.port}", timeout=30) for one in self.servers]
        self.killing = threading.Lock()
        self.stopping = threading.Event()

    @classmethod
    @contextmanager
    def running(cls, folder: Path, tally: _Tally) -> Iterator["_Shop"]:
        shop = cls(folder, tally)
        killer = threading.Thread(target=shop.kill_servers)
        try:
            for server in shop.servers:
                server.start()
            killer.start()
            yield shop
        finally:
            shop.stopping.set()
            killer.join()
            for server, client in zip(shop.servers, shop.clients, strict=True):
                client.close()
                if server.process is not None and server.process.poll() is None:
                    server.end(signal.SIGKILL)

    def kill_servers(self) -> None:
        chance = random.Random(2)
        while not self.stopping.wait(chance.uniform(*KILL_S)):
            with self.killing:
                server = chance.choice(self.servers)
                server.end(signal.SIGKILL)
                self.tally.kills += 1
                server.start()

    def expected(self) -> Gallery:
        known = {**self.indexed[self.index.current()], **self.changed}
        return {name: label for name, label in known.items() if label is not None}

    def ask(
        self, method: str, path: str, client: httpx.Client | None = None, **options: object
    ) -> httpx.Response | None:
        """An answer of one of the servers; None where it was killed, and nobody knows whether it did the thing."""
        client, deadline = client or self.chance.choice(self.clients), time.monotonic() + WAIT_S
        headers = {"X-Api-Key": KEY, "Content-Type": "image/jpeg"} if "content" in options else {"X-Api-Key": KEY}
        while True:
            try:
                answer = client.request(method, path, headers=headers, **options)  # type: ignore[arg-type]
            except httpx.ConnectError:  # it is being started
                answer = httpx.Response(503)
            except httpx.TransportError:
                return None
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer
            time.sleep(0.05)

    # What is done.

    def put(self) -> None:
        name, label = self.chance.choice(IDS), f"put {sum(self.tally.done.values())}"
        photo = car_photo(self.chance.randrange(1, 9), self.chance.randrange(9))
        client = self.chance.choice(self.clients)
        started = time.perf_counter()
        answer = self.ask("PUT", f"/gallery/{quote(name)}", client, params={"class": label}, content=photo)
        took_ms = (time.perf_counter() - started) * 1000
        if not self.settle(name, label, answer, 200):
            return
        found = self.ask("POST", "/search", client, params={"class": label}, files={"file": photo})
        if found is not None and found.status_code == 200:
            if [hit["id"] for hit in found.json()["results"]] == [name]:
                self.tally.took_ms.append(took_ms)
            else:
                self.tally.problems["missing"].append(f"{name} right after it was put: {found.text[:200]}")

    def put_many(self) -> None:
        """Three photos in one form, all or none of them."""
        names, number = self.chance.sample(IDS, 3), sum(self.tally.done.values())
        labels = [f"put {number}, {place}" for place in range(3)]
        table = "path,id,class\n" + "".join(f'{place}.jpg,{names[place]},"{labels[place]}"\n' for place in range(3))
        photos = [(f"{place}.jpg", car_photo(self.chance.randrange(1, 9), place)) for place in range(3)]
        answer = self.ask("POST", "/gallery", files=[("file", part) for part in [("photos.csv", table), *photos]])
        if answer is not None and answer.status_code == 200 and "problem" in answer.text:
            self.tally.problems["other"].append(f"photos of a form: {answer.text[:200]}")
            return
        for name, label in zip(names, labels, strict=True):
            self.settle(name, label, answer, 200)

    def delete(self) -> None:
        name = self.chance.choice(IDS)
        if len(self.expected().keys() - {name}) > 2:
            there = name in self.expected()
            self.settle(name, None, self.ask("DELETE", f"/gallery/{quote(name)}"), 204 if there else 404)

    def settle(self, name: str, label: str | None, answer: httpx.Response | None, wanted: int) -> bool:
        """Takes a change into account; what became of one without an answer is read from the log."""
        if answer is None:
            with closing(DeltaLog(self.folder / "delta")) as log:
                last = {change.id: change for change in log.last_of_each()}.get(name)
            if last is not None and (last.label if last.sha256 else None) == label:
                self.changed[name] = label
            return False
        if (answer.status_code == 404 and wanted == 204) or (answer.status_code == 204 and wanted == 404):
            self.tally.problems["other"].append(f"{name}: {answer.status_code} instead of {wanted}")
        elif answer.status_code not in (200, 204, 404):
            self.tally.problems["other"].append(f"{name}: {answer.status_code} {answer.text}")
        if answer.status_code in (200, 204):
            self.changed[name] = label
        return answer.status_code == wanted

    def search(self) -> None:
        answer = self.ask("POST", "/search", params={"k": 100}, files={"file": car_photo(1, 1)})
        if answer is not None:
            ids = [hit["id"] for hit in answer.json().get("results", [])]
            if answer.status_code != 200 or len(set(ids)) != len(ids):
                self.tally.problems["other"].append(f"a search: {answer.status_code} {answer.text[:200]}")

    def fold(self) -> None:
        self.job("fold")

    def rebuild(self) -> None:
        self.job("rebuild")

    def change_the_model(self) -> None:
        self.crop = 80 - self.crop
        self.job("rebuild")

    def job(self, kind: str, whole: bool = False) -> None:
        """A fold or a rebuild in a process of its own, which may be killed."""
        before = self.indexed[self.index.current()] if self.indexed else {}
        folder = {f"{path.parent.name}/{path.name}": path.parent.name for path in self.folder.glob("gallery/*/*.jpg")}
        process = multiprocessing.get_context("spawn").Process(target=_JOBS[kind], args=(self.folder, self.crop))
        process.start()
        process.join(None if whole or self.chance.random() < 0.5 else self.chance.uniform(*JOB_S))
        process.kill()
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            self.tally.problems["other"].append(f"a {kind} ended with {process.exitcode}")
        for version in self.index.versions():
            self.indexed.setdefault(version, folder if kind == "rebuild" else before)

    def roll_back(self) -> None:
        self.index.rollback(self.chance.choice(self.index.versions()))

    def change_the_folder(self) -> None:
        path = self.folder / "gallery" / f"car {self.chance.randrange(1, 4)}" / f"{self.chance.randrange(6)}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(car_photo(self.chance.randrange(1, 9), 1))

    def back_up(self) -> None:
        """As docs/deploy.md has it: the index, and then the log, while the servers go on."""
        copy = self.folder / "backup"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.index.root, copy / "index")
        with closing(sqlite3.connect(self.folder / "delta" / LOG_NAME)) as log:
            (copy / "delta").mkdir()
            log.execute("VACUUM INTO ?", [str(copy / "delta" / LOG_NAME)])
        shutil.copytree(self.folder / "delta" / "photos", copy / "delta" / "photos")
        self.backup = dict(self.changed), dict(self.indexed)

    def restore(self) -> None:
        if self.backup is None:
            return
        with self.killing:
            for server in self.servers:
                server.end(signal.SIGKILL)
            for name in ("index", "delta"):
                shutil.rmtree(self.folder / name)
                shutil.copytree(self.folder / "backup" / name, self.folder / name)
            changed, indexed = self.backup
            self.changed, self.indexed = dict(changed), dict(indexed)
            for server in self.servers:
                server.start()

    # What is there.

    def check(self, after: str) -> None:
        """Waits until each server shows what must be there; counts what it shows in the end."""
        for client in self.clients:
            deadline, seen = time.monotonic() + WAIT_S, self.shown(client)
            while Counter(self.expected().items()) != Counter(seen) and time.monotonic() < deadline:
                time.sleep(0.05)
                seen = self.shown(client)
            expected, problems = self.expected(), self.tally.problems
            for way, ids in (("in the list", [name for name, _ in seen]), ("in a search", self.found(client))):
                if ids is None:
                    continue
                counts, where = Counter(ids), f"{way} after {after}"
                problems["doubled"] += [f"{name} {where}" for name, count in counts.items() if count > 1]
                problems["missing"] += [f"{name} {where}" for name in expected if not counts[name]]
                problems["back"] += [f"{name} {where}" for name in counts if name not in expected]
            problems["lost"] += [
                f"{name} after {after}: {label}, not {expected[name]}"
                for name, label in seen
                if name in expected and expected[name] != label
            ]

    def found(self, client: httpx.Client) -> list[str] | None:
        """Ids that a search finds among more photos than there are; None where the server was killed."""
        answer = self.ask("POST", "/search", client, params={"k": 100}, files={"file": car_photo(1, 1)})
        if answer is None or answer.status_code != 200:
            return None
        return [hit["id"] for hit in answer.json()["results"]]

    def shown(self, client: httpx.Client) -> list[tuple[str, str]]:
        """Ids and classes on one server, page by page."""
        seen: list[tuple[str, str]] = []
        after: int | None = -1
        while after is not None:
            answer = self.ask("GET", "/gallery", client, params={"after": after, "limit": 7})
            if answer is None or answer.status_code != 200:
                return []
            page = answer.json()
            seen += [(photo["id"], photo["class"] or "") for photo in page["photos"]]
            after = page["next"]
        return seen


def _fold(folder: Path, _crop: int) -> None:
    # No server may have embedded all photos with this version's model yet; the next fold finds them then.
    with closing(DeltaLog(folder / "delta")) as log, suppress(ModelMismatch):
        fold_index(IndexDirectory(folder / "index"), log)


def _rebuild(folder: Path, crop: int) -> None:
    embedder = Embedder.load(folder / f"model-{crop}", "fake")
    with closing(DeltaLog(folder / "delta")) as log:
        build_index(folder / "gallery", folder / "index", embedder, allow_removals=True, delta=log)


_JOBS = {"fold": _fold, "rebuild": _rebuild}
