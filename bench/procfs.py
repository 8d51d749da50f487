"""CPU time and memory of a process, read from /proc."""

import os
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
RESET_PEAK = "5"  # written to /proc/PID/clear_refs, it resets VmHWM


def process_cpu_s(pid: int) -> float:
    """CPU time of all threads of a process so far, in steps of 10 ms; raises OSError when there is none."""
    # The name, in parentheses, may hold spaces: fields are counted behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM now; raises OSError when there is no such process."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The highest `resident_bytes` since the start, or since `reset_peak`."""
    return _status_bytes(pid, "VmHWM")


def anonymous_bytes(pid: int) -> int:
    """Memory of a process that is in RAM now and belongs to no file; raises OSError when there is no such process."""
    return _status_bytes(pid, "RssAnon")


def reset_peak(pid: int) -> bool:
    """Resets the peak; False where the kernel does not allow it."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no {name}")


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
