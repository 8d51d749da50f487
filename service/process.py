"""Settings of the server's process: its interpreter, its allocator and the priority of its threads."""

import ctypes
import gc
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

NICENESS = 5
"""A third of the event loop's weight. At 19 the work starves beside any other busy process of the machine."""

SWITCH_INTERVAL_S = 0.0001
"""How long a thread may hold the interpreter while another one waits for it; Python's default is 50 times as long."""

OBJECTS_BETWEEN_COLLECTIONS = 10_000
M_MMAP_THRESHOLD = -3
MMAP_THRESHOLD_BYTES = 4 << 20
"""Above a usual photo's pixels. glibc raises its own threshold with each large block that is freed, up to 32 MB; the
blocks of large photos then come from heaps that seldom shrink."""


def tune_interpreter() -> None:
    """Lets the event loop have the interpreter soon, and large blocks of memory go back to the system."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def freeze_objects() -> None:
    """Spares the garbage collector what the start has made: requests leave few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def lower_priority() -> None:
    """Lets the event loop go before the calling thread and the threads that it starts from now on.

    The kernel would share the cores evenly, and the loop would refuse what cannot be answered seconds too late.
    """
    os.nice(NICENESS)  # on Linux of this thread alone


def started_threads(name: str, count: int) -> ThreadPoolExecutor:
    """A pool of threads of lower priority, all of them started: later the machine might have none to give."""
    threads = ThreadPoolExecutor(count, thread_name_prefix=name, initializer=lower_priority)
    all_started = threading.Barrier(count + 1)
    for _ in range(count):
        threads.submit(all_started.wait)
    all_started.wait()
    return threads
