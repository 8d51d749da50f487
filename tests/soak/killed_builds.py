"""Runs `carsearch index` in children that end by SIGKILL at a step or at a time; started by `builds`.

Reads one order a line and answers one line of JSON. Everything is imported once; this process itself computes nothing
and has one thread, so that no thread of a library is lost in the fork.
"""

import json
import os
import signal
import sys
import threading
import time

import indexer.build  # noqa: F401  # what a command imports when it runs; here, so that no child has to
import model.runtimes.openvino  # noqa: F401
from service.cli import main as cli
from tests.unit.indexer.build_until_killed import CALLS, Steps

OF_THE_DISK = [(owner, name) for owner, name in CALLS if name != "embed"]


def build(arguments: list[str], last: int, log: int) -> None:
    """What a child does: the command line as it is, with its durable steps counted."""
    steps = Steps(last, 0, log)
    for owner, name in OF_THE_DISK:
        steps.wrap(owner, name)
    sys.argv = ["carsearch", "index", *arguments]
    cli.main()


def forked(arguments: list[str], last: int) -> tuple[int, int]:
    """Starts a child; its process id, and where it tells its steps."""
    assert len(os.listdir("/proc/self/task")) == 1
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # answers are the parent's
            build(arguments, last, writing)
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            os._exit(status)
    os.close(writing)
    return child, reading


def kill_after(child: int, delay_s: float, ended: threading.Event) -> None:
    if not ended.wait(delay_s):
        os.kill(child, signal.SIGKILL)


def main() -> None:
    """Answers orders until the input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        started = time.monotonic()
        child, reading = forked(order["arguments"], order["last"])
        ended = threading.Event()
        killer = threading.Thread(target=kill_after, args=(child, order["delay_s"], ended))
        if order["delay_s"]:
            killer.start()
        with os.fdopen(reading) as log:
            steps = log.read().splitlines()
        ended.set()
        if order["delay_s"]:
            killer.join()
        _, status = os.waitpid(child, 0)
        answer = {
            "steps": steps,
            "took_s": time.monotonic() - started,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        }
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
