"""Everything that a server meets in a day: searches, hostile requests, clients that go away, swaps, evaluations."""

import itertools
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from bench.procfs import resident_bytes
from indexer.versions import IndexDirectory
from service.demo.gallery import DemoGallery
from tests.e2e.catalogue.test_pictures import broken
from tests.soak.memory import Sample
from tests.support import mutants
from tests.support.bad_requests import BAD_REQUESTS
from tests.support.bodies import FORM, form, zip_of
from tests.support.connections import connect, head
from tests.support.photos import car_photo
from tests.support.servers import Server

LABORIOUS = {"031", "032"}
"""Cases of the catalogue that take seconds to make; a short run does without them."""

ANSWER = re.compile(r'carsearch_answers_total\{.*status="(?P<status>\d+)"\} (?P<count>\S+)')
Act = Callable[[Server, httpx.Client, random.Random], str]
"""One hostile request; gives the status of its answer, or "none"."""


@dataclass
class Met:
    """What a server has been asked beside its searches, and its memory meanwhile."""

    hostile: Counter[str] = field(default_factory=Counter)
    """By status, or "none" where none was waited for."""

    swaps: int = 0
    evaluations: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Hostile:
    """One of the acts after the other, in an order that the seed decides."""

    def __init__(self, laborious: bool) -> None:
        pictures = [picture for picture in broken() if laborious or picture.number not in LABORIOUS]
        self._pictures = [form(picture.make()) for picture in pictures]
        self._acts: Sequence[Act] = (
            self._picture, self._mutant, self._archive, _bad_request, _gone_in_its_head, _gone_in_its_body,
            _gone_in_the_queue, _nonsense,
        )  # fmt: skip
        self._seeds = itertools.count()

    def act(self, server: Server, client: httpx.Client, chance: random.Random) -> str:
        """Does one thing that no well-behaved client does."""
        try:
            return chance.choice(self._acts)(server, client, chance)
        except (httpx.TransportError, OSError):
            return "none"  # a connection that is cut off in the middle of an upload may be reset

    def _picture(self, _server: Server, client: httpx.Client, chance: random.Random) -> str:
        return _posted(client, "/search", chance.choice(self._pictures))

    def _mutant(self, _server: Server, client: httpx.Client, _chance: random.Random) -> str:
        return _posted(client, "/search", form(mutants.photo(next(self._seeds)).data))

    def _archive(self, _server: Server, client: httpx.Client, _chance: random.Random) -> str:
        return _posted(client, "/evaluate", form(mutants.archive(next(self._seeds)).data, "archive"))


def _posted(client: httpx.Client, path: str, body: bytes) -> str:
    return str(client.post(path, content=body, headers=FORM).status_code)


def _bad_request(_server: Server, client: httpx.Client, chance: random.Random) -> str:
    bad = chance.choice(BAD_REQUESTS)
    return str(client.request(bad.method, bad.path, **bad.arguments).status_code)


def _gone_in_its_head(server: Server, _client: httpx.Client, _chance: random.Random) -> str:
    return _cut_off(server, head("Content-Length: 1000")[:50])


def _gone_in_its_body(server: Server, _client: httpx.Client, chance: random.Random) -> str:
    body = form(car_photo(1, chance.randrange(100)))
    return _cut_off(server, head(f"Content-Length: {len(body)}") + body[: chance.randrange(len(body))])


def _gone_in_the_queue(server: Server, _client: httpx.Client, chance: random.Random) -> str:
    body = form(car_photo(1, chance.randrange(100)))
    return _cut_off(server, head(f"Content-Length: {len(body)}") + body)


def _nonsense(server: Server, _client: httpx.Client, chance: random.Random) -> str:
    return _cut_off(server, chance.randbytes(chance.randrange(1, 2000)))


def _cut_off(server: Server, data: bytes) -> str:
    with connect(server) as connection:
        connection.sendall(data)
    return "none"


@contextmanager
def besides(
    server: Server, index: IndexDirectory, hostile: Hostile, hostile_per_s: float, swap_s: float, evaluate_s: float,
    sample_s: float,
) -> Iterator[Met]:  # fmt: skip
    """All of it beside the searches, until the block ends; the times are those between two swaps and the like."""
    met, stop = Met(), threading.Event()
    versions = itertools.cycle(index.versions())
    photos = zip_of({f"{kind}/{shot}.jpg": car_photo(kind, shot) for kind in range(3) for shot in range(4)})
    chance = random.Random(0)

    def swap(_client: httpx.Client) -> None:
        index.switch(next(versions))
        met.swaps += 1

    def evaluate(client: httpx.Client) -> None:
        met.evaluations[_posted(client, "/evaluate", form(photos, "archive"))] += 1

    def sample(client: httpx.Client) -> None:
        answers = sum(statuses(client).values())
        met.samples.append(Sample(answers, resident_bytes(server.process.pid)))

    def act(client: httpx.Client) -> None:
        met.hostile[hostile.act(server, client, chance)] += 1

    def every(seconds: float, what: Callable[[httpx.Client], None]) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            due = time.monotonic() + seconds
            while not stop.wait(max(0.0, due - time.monotonic())):
                try:
                    what(client)
                except Exception as problem:  # told at the end: a thread that dies silently would be a kept promise
                    met.problems.append(f"{what.__name__}: {problem!r}")
                due = max(due + seconds, time.monotonic() - seconds)

    tasks = [(swap_s, swap), (evaluate_s, evaluate), (sample_s, sample), (1 / hostile_per_s, act)]
    threads = [threading.Thread(target=every, args=task) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield met
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def statuses(client: httpx.Client) -> dict[str, float]:
    """Answers of a server so far, by status."""
    found: dict[str, float] = {}
    for line in client.get("/metrics").text.splitlines():
        if answer := ANSWER.match(line):
            found[answer["status"]] = found.get(answer["status"], 0) + float(answer["count"])
    return found


def demo_photos() -> list[str]:
    """The photos of the demo that are searched with."""
    gallery = DemoGallery.load()
    return [str(gallery.directory / query.file) for query in gallery.queries]
