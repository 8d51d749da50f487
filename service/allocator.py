"""Memory that is given back: without this a server keeps what one huge photo took, until it ends.

glibc maps large blocks from the system and returns them when they are freed, but raises what it calls large with each
one that it frees, up to 32 MB. Pillow's blocks of 16 MB then come from the heaps of the threads, which seldom shrink:
two photos of 50 million pixels left 250 MB behind.
"""

import ctypes

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 4 << 20
"""Well above a usual photo's pixels, for which mapping would cost more than decoding."""


def return_large_blocks() -> None:
    """Fixes what is large, for this process; where the C library is not glibc nothing is done."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
