"""Stamps of files, by which a photo is known to be unchanged without reading it: size, time of change and inode."""

import struct
import time
from pathlib import Path

SETTLED_NS = 2 * 10**9
"""A file that changed later than this may change once more within one tick of its file system's clock."""


def stamp_of(path: Path) -> bytes | None:
    """The size in bytes, the time of change in ns and the inode of a file, as two int64 and a uint64, 24 bytes.

    None for a file that changed within the last two seconds, and for one that cannot be looked at.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if time.time_ns() - status.st_mtime_ns < SETTLED_NS:
        return None
    return struct.pack("<qqQ", status.st_size, status.st_mtime_ns, status.st_ino)
