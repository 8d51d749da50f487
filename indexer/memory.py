"""How much memory is left to load something: of the container's limit (cgroup version 2), and of the machine's."""

import math
from pathlib import Path

from model.cgroup import PROC, group_folders

MEMINFO = Path("/proc/meminfo")


def available_bytes(proc: Path = PROC, meminfo: Path = MEMINFO) -> float:
    """Memory that may still be taken before something is killed, infinite where nobody says."""
    machine_kib = _numbers(meminfo).get("MemAvailable:", math.inf)
    left = [_left_bytes(folder) for folder in group_folders("memory", proc)]
    return max(0.0, min([*left, 1024 * machine_kib]))


def memory_limit_bytes(proc: Path = PROC) -> float:
    """The memory that this container may use, infinite where there is no limit."""
    return min((_limit_bytes(folder) for folder in group_folders("memory", proc)), default=math.inf)


def _left_bytes(group: Path) -> float:
    pages = _numbers(group / "memory.stat")
    files = pages.get("active_file", 0) + pages.get("inactive_file", 0)  # are given up when memory is needed
    return _limit_bytes(group) - _number(group / "memory.current", 0) + files


def _limit_bytes(group: Path) -> float:
    return _number(group / "memory.max", math.inf)


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
