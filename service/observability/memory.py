"""How much memory is left to load something: of the container's limit, and of the machine's."""

import math
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
LIMIT_FILES = ("memory.max", "memory/memory.limit_in_bytes")
"""Of version 2 and of version 1, as a container sees its own."""

UNLIMITED_BYTES = 1 << 60
MEMINFO = Path("/proc/meminfo")
IN_USE = (("memory.current", "memory.stat", ""), ("memory/memory.usage_in_bytes", "memory/memory.stat", "total_"))
"""Of version 2 and of version 1: what a container uses, and what of that are pages of files, which are given up."""


def available_bytes(cgroups: Path = CGROUPS, meminfo: Path = MEMINFO) -> float:
    """Memory that may still be taken before something is killed, infinite where nobody says."""
    left = memory_limit_bytes(cgroups)
    if left < math.inf:
        left -= _in_use_bytes(cgroups)
    return max(0.0, min(left, _numbers(meminfo, 1024).get("MemAvailable:", math.inf)))


def _in_use_bytes(cgroups: Path) -> int:
    for usage, statistics, prefix in IN_USE:
        try:
            used = int((cgroups / usage).read_text())
        except (OSError, ValueError):
            continue
        files = _numbers(cgroups / statistics)
        return used - sum(files.get(f"{prefix}{state}_file", 0) for state in ("active", "inactive"))
    return 0


def _numbers(path: Path, unit: int = 1) -> dict[str, int]:
    """Name -> number of a file that has a line for each."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) * unit for line in lines if len(line) > 1 and line[1].isdecimal()}


def memory_limit_bytes(cgroups: Path = CGROUPS) -> float:
    """The memory that this container may use, infinite where there is no limit."""
    for name in LIMIT_FILES:
        try:
            told = (cgroups / name).read_text().strip()
        except OSError:
            continue
        if told.isdecimal() and int(told) < UNLIMITED_BYTES:  # version 1 has no word for "none", only a huge number
            return int(told)
    return math.inf
