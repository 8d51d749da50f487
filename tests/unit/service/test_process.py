"""What a server changes of its process: threads, their priority, the interpreter, the garbage collector."""

import os
import subprocess
import sys
import threading

import pytest

from service.process import NICENESS, SWITCH_INTERVAL_S, started_threads

THREADS = 3


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)  # on Linux of the calling thread


def test_threads_are_all_started_and_of_lower_priority_than_their_starter() -> None:
    own, before = niceness(), {thread.name for thread in threading.enumerate()}
    with started_threads("test-process", THREADS) as threads:
        names = {thread.name for thread in threading.enumerate()} - before
        assert names == {f"test-process_{number}" for number in range(THREADS)}
        found = {threads.submit(niceness).result() for _ in range(2 * THREADS)}
    assert (found, niceness()) == ({min(19, own + NICENESS)}, own)


PROGRAM = """
import gc, sys
from service.process import OBJECTS_BETWEEN_COLLECTIONS, freeze_objects, tune_interpreter

tune_interpreter()
print(sys.getswitchinterval())
looked = []
gc.callbacks.append(lambda phase, _about: looked.append(phase))
kept = [[] for _ in range(5_000)]
before = len(looked)
freeze_objects()
looked.clear()
more = [[] for _ in range(5_000)]
print(before > 0, gc.get_freeze_count() > 5_000, len(looked))
cycles = 0
while not looked:
    one = []
    one.append(one)
    cycles += 1
print(cycles < OBJECTS_BETWEEN_COLLECTIONS)
"""


def test_a_tuned_process_switches_threads_soon_and_collects_seldom_and_not_among_what_the_start_has_made() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    interval_s, *others = told.stdout.split()
    assert float(interval_s) == pytest.approx(SWITCH_INTERVAL_S)
    assert others == ["True", "True", "0", "True"]
