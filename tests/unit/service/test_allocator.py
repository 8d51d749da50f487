"""Memory that is free is given back to the system when a server has nothing else to do."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, time
from bench.procfs import resident_bytes
from service import allocator

allocator.LOOK_S = 0.1
allocator.LATEST_S = {latest_s}
if {giving}:
    allocator.give_memory_back()
blocks = [bytearray(3000) for _ in range(40_000)]
full = resident_bytes(os.getpid())
kept = blocks[::50]
del blocks
deadline = time.monotonic() + {patience_s}
while resident_bytes(os.getpid()) > full - 60_000_000 and time.monotonic() < deadline:
    until = time.monotonic() + 0.1
    while {busy} and time.monotonic() < until:
        pass
    time.sleep(max(0, until - time.monotonic()))
print((full - resident_bytes(os.getpid())) // 1_000_000)
"""


def given_back_mb(giving: bool, patience_s: float, latest_s: float = 60, busy: bool = False) -> int:
    program = PROGRAM.format(giving=giving, patience_s=patience_s, latest_s=latest_s, busy=busy)
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return int(told.stdout)


@pytest.mark.parametrize(("giving", "patience_s"), [(True, 30), (False, 2)], ids=["with it", "without it"])
def test_holes_between_blocks_are_given_back_in_a_quiet_moment(giving: bool, patience_s: int) -> None:
    assert (given_back_mb(giving, patience_s) >= 60) == giving


@pytest.mark.parametrize(("latest_s", "patience_s"), [(0.5, 30), (60, 2)], ids=["in time", "not yet"])
def test_who_is_always_busy_gives_back_all_the_same_after_a_while(latest_s: float, patience_s: float) -> None:
    assert (given_back_mb(True, patience_s, latest_s, busy=True) >= 60) == (latest_s < patience_s)


COUNTING = """
import gc
from service.allocator import COLLECT_EVERY, collect_seldom

looked = []
gc.callbacks.append(lambda phase, _about: looked.append(phase))
kept = [[] for _ in range(5_000)]
before = len(looked)
collect_seldom()
looked.clear()
more = [[] for _ in range(5_000)]
print(before > 0, gc.get_freeze_count() > 5_000, len(looked))
cycles = 0
while not looked:
    one = []
    one.append(one)
    cycles += 1
print(cycles < COLLECT_EVERY)
"""


def test_cycles_are_looked_for_seldom_and_not_among_what_the_start_has_made() -> None:
    told = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.split() == ["True", "True", "0", "True"]
