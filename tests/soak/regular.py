"""Clients that ask at fixed times, whatever else a server has to do, and note how each request ended."""

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.bodies import FORM, form

NOTHING = 0
"""The status of a request that had no answer in time."""


@dataclass
class Regular:
    """Asks one thing every so many seconds, over one connection, from an address of this machine.

    With a `photo` it is a search. An answer that takes longer than `patience_s` counts as none.
    """

    port: int
    path: str
    every_s: float
    patience_s: float
    source: str = "127.0.0.1"
    photo: bytes = b""
    statuses: list[int] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)
    """How long each request took, answered or not."""

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, self.patience_s, source_address=(self.source, 0))

    def ask(self, connection: http.client.HTTPConnection) -> int:
        """One request; notes and returns its status."""
        started = time.perf_counter()
        try:
            if self.photo:
                connection.request("POST", self.path, form(self.photo), FORM)
            else:
                connection.request("GET", self.path)
            response = connection.getresponse()
            response.read()
            status = response.status
        except (OSError, http.client.HTTPException):
            connection.close()  # it connects again by itself
            status = NOTHING
        self.took_ms.append((time.perf_counter() - started) * 1000)
        self.statuses.append(status)
        return status

    @property
    def failures(self) -> int:
        return sum(status != 200 for status in self.statuses)

    def keep_asking(self, stop: threading.Event) -> None:
        connection, due = self.connection(), time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            self.ask(connection)
            due = max(due + self.every_s, time.monotonic() - self.every_s)  # what was missed is not made up for
        connection.close()


@contextmanager
def asking(clients: Sequence[Regular]) -> Iterator[None]:
    """All of them ask until the block ends."""
    stop = threading.Event()
    threads = [threading.Thread(target=client.keep_asking, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
