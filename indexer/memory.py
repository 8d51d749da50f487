"""How much memory is left to load something: of the container's limit (cgroup version 2), and of the machine's."""

import math
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # a container sees its own here
MEMINFO = Path("/proc/meminfo")


def available_bytes(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> float:
    """Memory that may still be taken before something is killed, infinite where nobody says."""
    pages = _numbers(cgroup / "memory.stat")
    files = pages.get("active_file", 0) + pages.get("inactive_file", 0)  # are given up when memory is needed
    left = memory_limit_bytes(cgroup) - _number(cgroup / "memory.current", 0) + files
    machine_kib = _numbers(meminfo).get("MemAvailable:", math.inf)
    return max(0.0, min(left, 1024 * machine_kib))


def memory_limit_bytes(cgroup: Path = CGROUP) -> float:
    """The memory that this container may use, infinite where there is no limit."""
    return _number(cgroup / "memory.max", math.inf)


def _number(path: Path, otherwise: float) -> float:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no number
        return otherwise


def _numbers(path: Path) -> dict[str, int]:
    """Name -> number of a file that has a line for each."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}
