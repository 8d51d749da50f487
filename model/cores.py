"""How many cores this process may use: the only answer to that question, for every pool of threads."""

import math
import os
from functools import cache
from pathlib import Path

from model.cgroup import PROC, group_folders


def available_cores(proc: Path = PROC) -> int:
    """Cores of the affinity mask, or fewer where a container has a CPU quota: 1.5 cores count as 2. At least 1.

    More threads than the quota pays for spend it early in each period, and then all of them stand still. The quota is
    read once.
    """
    return max(1, min(len(os.sched_getaffinity(0)), math.ceil(_quota_cores(proc))))


@cache
def _quota_cores(proc: Path) -> float:
    """Cores that the least quota pays for; as many as there are where there is none."""
    quotas = [_quota(folder) for folder in group_folders("cpu", proc)]
    return min([quota for quota in quotas if quota is not None], default=float(os.cpu_count() or 1))


def _quota(folder: Path) -> float | None:
    """The quota of one group in cores, of cgroup version 2 or 1, or None."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota_us, period_us = (int(word) for name in names for word in (folder / name).read_text().split())
        except (OSError, ValueError):  # "max" is no number
            continue
        if quota_us > 0 and period_us > 0:  # version 1 says -1 where there is none
            return quota_us / period_us
    return None
