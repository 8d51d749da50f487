"""The control groups that hold this process (cgroups(7)), of version 1 and 2: folders whose files tell the limits."""

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc/self")


def group_folders(controller: str, proc: Path = PROC) -> Iterator[Path]:
    """Folders of the groups whose limits of a controller ("cpu", "memory") hold: the process's own, then its parents.

    A limit of any of them holds. Groups above a container's own cannot be seen from inside. `proc` is where the kernel
    describes the process. Without control groups there are none.
    """
    paths: dict[str, str] = {}  # type of file system -> the process's path in the hierarchy
    for line in _lines(proc / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = path
        elif controller in controllers.split(","):
            paths["cgroup"] = path
    for line in _lines(proc / "mountinfo"):
        mount, _, file_system = line.partition(" - ")
        top, point = mount.split(" ")[3:5]
        kind, _, options = file_system.split(" ", 2)
        if kind not in paths or (kind == "cgroup" and controller not in options.split(",")):
            continue
        # A container may see its own group as the top of the mount, and still a longer path in /proc.
        own = Path(paths[kind])
        below = own.relative_to(top) if own.is_relative_to(top) else Path()
        yield from (Path(point) / part for part in (below, *below.parents))


def _lines(path: Path) -> list[str]:
    try:
        return os.fsdecode(path.read_bytes()).split("\n")[:-1]
    except OSError:
        return []
