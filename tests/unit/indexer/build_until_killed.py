"""Runs index builds that end by SIGKILL at a chosen step, or meet an error there; started as a process of its own.

Reads one order a line, forks a child that builds, and answers one line of JSON: the names of the steps that were
reached, how many photos the network embedded, the signal that ended the child, and the error that it told. The server
itself never computes anything, so that no thread of a library is lost in the fork.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from indexer.build import build_index
from indexer.checkpoint import Checkpoint
from indexer.versions import IndexDirectory
from model import storage as files
from model.embedder import Embedder
from model.errors import CarsearchError
from model.runtimes.fake import FakeRuntime

CALLS = (
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "mkdir"),
    (os, "unlink"),
    (os, "rmdir"),
    (shutil, "copyfile"),
    (Checkpoint, "add"),
    (FakeRuntime, "embed"),
)
READS = ((files, "sha256_file"),)
"""Steps only for errors: a kill before reading is one before whatever comes next."""


class Steps:
    """Counts the durable steps of this process and ends it just before number `last`; 0 never does.

    With an error's number in `fails` that step raises the error instead, and the process goes on.
    """

    def __init__(self, last: int, fails: int, log: int) -> None:
        self._last = last
        self._fails = fails
        self._log = log
        self._count = 0

    def reached(self, name: str, path: object = None) -> None:
        self._count += 1
        os.write(self._log, f"{name}\n".encode())
        if self._count == self._last:
            if self._fails:  # as the system tells it: where a step has only a descriptor, without a path
                raise OSError(self._fails, os.strerror(self._fails), None if isinstance(path, int) else path)
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: object, name: str) -> None:
        """Makes every call of a function a step, and its return one where the caller would not know it happened."""
        original: Callable[..., Any] = getattr(owner, name)

        def stepping(*arguments: Any, **options: Any) -> Any:
            self.reached(name, arguments[0])
            result = original(*arguments, **options)
            if name == "embed":
                os.write(self._log, f"photos {len(arguments[1])}\n".encode())
            if owner in (Checkpoint, FakeRuntime):  # after any other call is before the next
                self.reached(f"after {name}")
            return result

        setattr(owner, name, stepping)


def build(order: dict[str, Any], embedder: Embedder, log: int) -> None:
    """What a child does."""
    fails = order.get("fails", 0)
    steps = Steps(order["last"], fails, log)
    # Unfinished work is SQLite's, which knows no errors of Python's.
    for owner, name in [*CALLS[:-2], *READS] if fails else CALLS:
        steps.wrap(owner, name)
    try:
        build_index(Path(order["photos"]), IndexDirectory(Path(order["index"])), embedder, keep=order["keep"])
    except (CarsearchError, OSError) as problem:
        os.write(log, f"error {problem}\n".encode())
        return
    steps.reached("end")


def serve(model: str) -> None:
    """Answers orders until the input ends."""
    embedders = {model: Embedder.load(model, "fake")}
    for line in sys.stdin:
        order = json.loads(line)
        embedder = embedders.setdefault(order["model"], Embedder.load(order["model"], "fake"))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                build(order, embedder, writing)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as log:
            lines = log.read().splitlines()
        _, status = os.waitpid(child, 0)
        photos = [int(line.split()[1]) for line in lines if line.startswith("photos ")]
        errors = [line.removeprefix("error ") for line in lines if line.startswith("error ")]
        answer = {
            "steps": [line for line in lines if not line.startswith(("photos ", "error "))],
            "embedded": sum(photos),
            "error": "\n".join(errors),
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        }
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve(sys.argv[1])
