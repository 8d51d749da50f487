"""How much memory is left to load something: of the container's limit, and of the machine's."""

import math
from pathlib import Path

from service.observability.metrics import CGROUPS, memory_limit_bytes

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
