"""Servers that are stopped, killed and started again on the same port, and clients that never stop asking."""

import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.serving import free_port
from tests.support.servers import START_S, Server, clean_environment, wait_for

SETTINGS = {"SEARCH_THREADS": "1", "DRAIN_S": "0.5"}


@dataclass
class Replica:
    """A `carsearch serve` with a port of its own for life."""

    index: Path
    log_path: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None
    environment: Mapping[str, str] = field(default_factory=lambda: clean_environment(**SETTINGS))

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """Starts it."""
        command = [
            sys.executable,
            "-m",
            "carsearch",
            "serve",
            "--index",
            str(self.index),
            "--port",
            str(self.port),
        ]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        assert self.process is not None
        url = f"http://127.0.0.1:{self.port}"
        with httpx.Client(base_url=url, timeout=30) as client:
            wait_for(Server(url, self.process, self.log_path, client), "/readyz")

    def end(self, number: signal.Signals) -> int:
        """Sends a signal, waits for the end and returns the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=40)


@contextmanager
def running_replicas(index: Path, folder: Path, count: int) -> Iterator[list[Replica]]:
    """Ready replicas on one index; whatever is still running is killed at the end."""
    replicas = [Replica(index, folder / f"replica-{number}.log") for number in range(count)]
    try:
        for replica in replicas:
            replica.start()
        yield replicas
    finally:
        for replica in replicas:
            if replica.process is not None and replica.process.poll() is None:
                replica.end(signal.SIGKILL)


class Load:
    """Clients that each ask for one photo after the other, over a connection that is kept, and check every answer."""

    def __init__(self, url: str, photos: Mapping[str, bytes]) -> None:
        self.failures: list[str] = []
        self.answers = 0
        self._url, self._photos = url, photos
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def wait_for_more(self, count: int) -> None:
        """Waits until so many more searches were answered; a failed one counts too, so that its test ends."""
        with self._changed:
            wanted = self.answers + count
            assert self._changed.wait_for(lambda: self.answers >= wanted, timeout=START_S)

    def _ask(self, number: int) -> None:
        """One client; each begins with another photo, so that at any time different ones are asked for."""
        names = list(self._photos)
        with httpx.Client(base_url=self._url, timeout=30) as client:
            for turn in itertools.count(number):
                if self._stopping.is_set():
                    return
                problem = self._problem(client, names[turn % len(names)])
                with self._changed:
                    self.answers += 1
                    if problem is not None:
                        self.failures.append(problem)
                    self._changed.notify_all()

    def _problem(self, client: httpx.Client, name: str) -> str | None:
        """What is wrong with the answer for a photo of the gallery, which is its own nearest one; None when nothing."""
        try:
            answer = client.post("/search?k=5", files={"file": self._photos[name]})
        except httpx.TransportError as problem:
            return f"{name}: {problem!r}"
        if answer.status_code != 200:
            return f"{name}: {answer.status_code} {answer.text}"
        found = answer.json()["nearest"]["id"]
        return None if found == name else f"{name}: the answer is that of {found}"
