"""What must hold after every case of the catalogue, whatever was sent ("A" in its outcomes)."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.procfs import resident_bytes
from tests.e2e.catalogue.pictures import PHOTO, QUERY, exif
from tests.support.bodies import zip_of
from tests.support.calls import assert_problem
from tests.support.codes import STATUS_OF
from tests.support.photos import car_photo, encoded
from tests.support.servers import Server

MAX_LOG_LINE_BYTES = 4096
MAX_GROWTH = 0.10
SETTLE_S = 10
ANSWERS = re.compile(r'carsearch_answers_total\{code="(\w+)",route="([^"]+)",status="(\d+)"\} (\S+)')


@dataclass
class Standing:
    """A server with what it holds at rest; `spool` is the only folder that it may write to."""

    server: Server
    spool: Path
    resident_bytes: int = field(init=False)
    _threads: int = field(init=False)
    _files: int = field(init=False)
    _probe: list[tuple[str, float]] = field(init=False)
    _cases: int = 0

    def __post_init__(self) -> None:
        for warm in (QUERY.read_bytes(), encoded(PHOTO, "PNG", exif=exif(1)[6:]), encoded(PHOTO, "WEBP")):
            for _ in range(20):
                self.server.client.post("/search", files={"file": warm})
        # Pools of threads grow with their first uses, up to their sizes; that of searches when several come at once.
        with httpx.Client(base_url=self.server.url) as others, ThreadPoolExecutor(4) as clients:
            photo = QUERY.read_bytes()
            list(clients.map(lambda _: others.post("/search", files={"file": photo}), range(40)))
        photos = zip_of({f"{kind}/{shot}.jpg": car_photo(kind, shot) for kind in range(2) for shot in range(2)})
        for _ in range(8):
            assert self.server.client.post("/evaluate", files={"archive": photos}).status_code == 200
        self._probe = self.probe()
        self.resident_bytes = resident_bytes(self.pid)
        self._threads, self._files = self._held()

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def probe(self) -> list[tuple[str, float]]:
        """Ids and scores of a search that always finds the same."""
        response = self.server.client.post("/search", files={"file": QUERY.read_bytes()})
        assert response.status_code == 200, response.text
        return [(hit["id"], hit["score"]) for hit in response.json()["results"]]

    def _held(self) -> tuple[int, int]:
        return len(os.listdir(f"/proc/{self.pid}/task")), len(os.listdir(f"/proc/{self.pid}/fd"))

    @contextmanager
    def case(self, code: str, *secrets: str) -> Iterator[Callable[..., httpx.Response]]:
        """Gives a function that sends a request of the case; they all have one id.

        Each answer must have `code` ("ok" for a success), or the one that is told with it, and repeat no secret;
        afterwards everything must stand.
        """
        self._cases += 1
        identity = f"case-{self._cases}-{os.getpid()}"
        before = self.answers()
        sent: Counter[tuple[str, str]] = Counter()

        def send(path: str = "/search", method: str = "POST", code: str = code, **arguments: Any) -> httpx.Response:
            headers = {**arguments.pop("headers", {}), "X-Request-Id": identity}
            response = self.server.client.request(method, path, headers=headers, **arguments)
            sent[code, str(response.status_code)] += 1
            if code == "ok":
                assert response.status_code == 200, response.text
            else:
                assert_problem(response, code, *secrets, str(self.spool), QUERY.name)
            return response

        yield send
        assert sent
        counted = {key: value - before.get(key, 0) for key, value in self.answers().items()}
        mine: Counter[tuple[str, str]] = Counter()
        for (answered, route, status), value in counted.items():
            if value and route != "/metrics":
                mine[answered, status] += int(value)
        assert mine == sent
        self.assert_stands()
        lines = [line for line in self.server.log.splitlines() if identity in line]
        assert len(lines) == sent.total()
        assert max(len(line.encode()) for line in lines) <= MAX_LOG_LINE_BYTES
        assert not [line for line in lines for secret in secrets if secret in line]

    def answers(self) -> dict[tuple[str, str, str], float]:
        """Answers that were counted, by code, route and status; no label has a value that is not known beforehand."""
        found = ANSWERS.findall(self.server.client.get("/metrics").text)
        assert {code for code, *_ in found} <= {"ok", *STATUS_OF}
        assert {route for _, route, *_ in found} <= ROUTES
        return {(code, route, status): float(value) for code, route, status, value in found}

    def assert_stands(self) -> None:
        """The same process finds the same, and has given back what it took."""
        assert self.server.process.poll() is None, self.server.log[-2000:]
        found = self.probe()
        assert [identity for identity, _ in found] == [identity for identity, _ in self._probe]
        for (_, score), (_, expected) in zip(found, self._probe, strict=True):
            assert abs(score - expected) <= 1e-6
        assert list(self.spool.iterdir()) == []
        eventually_at_most(lambda: self._held()[0], self._threads, "threads")
        eventually_at_most(lambda: self._held()[1], self._files, "open files")

    def assert_memory(self) -> None:
        """Memory is back within MAX_GROWTH of what it was at rest."""
        for _ in range(50):  # what a thread holds it gives back when it next decodes
            self.probe()
        most = int(self.resident_bytes * (1 + MAX_GROWTH))
        eventually_at_most(lambda: resident_bytes(self.pid), most, "bytes of memory")


ROUTES = {
    "none", "/", "/web/{name}", "/search", "/search/batch", "/evaluate", "/evaluations", "/evaluations/{identity}",
    "/gallery", "/gallery/classes", "/gallery/duplicates",
    "/gallery/{identity:path}/image",
    "/livez", "/readyz", "/metrics", "/info", "/docs", "/openapi.json", "/docs/oauth2-redirect", "/static-offline-docs",
}  # fmt: skip


def eventually_at_most(value: Callable[[], int], most: int, what: str) -> None:
    deadline = time.monotonic() + SETTLE_S
    while (now := value()) > most:
        assert time.monotonic() < deadline, f"{now} {what}, and {most} before"
        time.sleep(0.05)
