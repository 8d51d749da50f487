"""Memory that is given back: without this a server keeps what its busiest moment took, until it ends.

glibc maps large blocks from the system and returns them when they are freed, but raises what it calls large with each
one that it frees, up to 32 MB. Pillow's blocks of 16 MB then come from the heaps of the threads, which seldom shrink:
two photos of 50 million pixels left 250 MB behind.

Of smaller blocks it returns only those at the end of a heap. Tens of thousands of photos of all sizes leave holes that
add up to a tenth of the process; they are returned when there is nothing else to do, or at last once a minute.
"""

import ctypes
import gc
import threading
import time
from collections.abc import Callable

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 4 << 20
"""Well above a usual photo's pixels, for which mapping would cost more than decoding."""

LOOK_S = 2.0
LATEST_S = 60.0
"""A server that always has something to do gives back after so long. It takes 10 to 50 ms, in which others may wait for
memory: seldom enough for nobody to notice. A burst after a quiet time is spared it."""

COLLECT_EVERY = 10_000
"""Objects that may be made before the garbage collector looks for cycles among them; 700 by default."""

QUIET = 0.05
"""Of one core: a process that takes less has nothing to do but to answer probes."""


def collect_seldom() -> None:
    """Spares requests the search for cycles, of which they leave none: it took a tenth of a busy event loop.

    Whatever there is by now stays until the process ends, and is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)


def give_memory_back() -> None:
    """Sees to it for this process; where the C library is not glibc nothing is done."""
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc_trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    threading.Thread(target=_trim_now_and_then, args=(malloc_trim,), name="memory", daemon=True).start()


def _trim_now_and_then(malloc_trim: Callable[[int], int]) -> None:
    """Returns the holes in the first quiet moment after work, or LATEST_S after work began; then waits for work."""
    worked, used_s, began = False, time.process_time(), 0.0
    while True:
        time.sleep(LOOK_S)
        before_s, used_s = used_s, time.process_time()
        busy = used_s - before_s > QUIET * LOOK_S
        if busy and not worked:
            worked, began = True, time.monotonic()
        if worked and (not busy or time.monotonic() - began > LATEST_S):
            malloc_trim(0)  # without the interpreter's lock
            worked, used_s = False, time.process_time()
