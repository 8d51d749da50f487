"""Control groups: made of files, and a real one where this machine lets us make it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.cgroup import group_folders

KINDS = {1: "cgroup", 2: "cgroup2"}


def fake_proc(folder: Path, version: int, files: dict[str, str], own: str = "/", top: str = "/") -> Path:
    """A folder in the place of /proc/self: the process is in the group `own` of a hierarchy that is mounted from `top`.

    `files` are paths below the mount and what they hold. Version 1 has "cpu" and "cpuacct" together, as usual.
    """
    mount = folder / "mounted"
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text)
    kind = KINDS[version]
    controllers = "cpu,cpuacct" if version == 1 else ""
    (folder / "cgroup").write_text(f"12:pids:/elsewhere\n4:{controllers}:{own}\n")
    (folder / "mountinfo").write_text(
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"30 21 0:26 {top} {mount} ro,nosuid shared:4 - {kind} {kind} rw,{controllers or 'nsdelegate'}\n"
        f"31 21 0:27 / {folder}/pids rw - cgroup cgroup rw,pids\n"
    )
    return folder


@contextmanager
def limited_group(quota: float) -> Iterator[Path]:
    """A group with a CPU quota in cores and one without below it, whose folder comes back; skips where it cannot."""
    above = next(group_folders("cpu"), Path("/nowhere"))
    outer = above / f"carsearch-test-{os.getpid()}"
    inner = outer / "inner"
    made: list[Path] = []
    try:
        for group in (outer, inner):
            group.mkdir()
            made.append(group)
        if (outer / "cpu.max").exists():
            (outer / "cpu.max").write_text(f"{int(quota * 100_000)} 100000")
        else:
            (outer / "cpu.cfs_quota_us").write_text(str(int(quota * 100_000)))
    except OSError as problem:
        pytest.skip(f"no control group with a CPU quota can be made here: {problem}")
    else:
        yield inner
    finally:
        for group in reversed(made):
            group.rmdir()
