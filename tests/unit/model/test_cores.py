"""How many cores a process may use: its affinity, and a container's CPU quota as the kernel tells it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.cores import available_cores
from tests.support.control_groups import fake_proc, limited_group


def version_1(group: str, quota_us: int, period_us: int = 100_000) -> dict[str, str]:
    files = {"cpu.cfs_quota_us": quota_us, "cpu.cfs_period_us": period_us}
    return {str(Path(group, name)): f"{value}\n" for name, value in files.items()}


@pytest.fixture
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 cores, of which the process may use 8."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


pytestmark = pytest.mark.usefixtures("_eight_cores")


@pytest.mark.parametrize(
    ("version", "files", "own", "top", "expected"),
    [
        pytest.param(2, {}, "/", "/", 8, id="no limit is told"),
        pytest.param(2, {"cpu.max": "max 100000\n"}, "/", "/", 8, id="no limit"),
        pytest.param(2, {"cpu.max": "200000 100000\n"}, "/", "/", 2, id="a container"),
        pytest.param(2, {"cpu.max": "150000 100000\n"}, "/", "/", 2, id="one core and a half"),
        pytest.param(2, {"cpu.max": "10000 100000\n"}, "/", "/", 1, id="a tenth of a core"),
        pytest.param(2, {"cpu.max": "30000 10000\n"}, "/", "/", 3, id="another period"),
        pytest.param(2, {"cpu.max": "6400000 100000\n"}, "/", "/", 8, id="more than the affinity"),
        pytest.param(2, {"a/b.service/cpu.max": "300000 100000\n"}, "/a/b.service", "/", 3, id="a systemd unit"),
        pytest.param(
            2, {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n"}, "/a/b", "/", 4, id="of the parent"
        ),
        pytest.param(
            2, {"a/b/cpu.max": "500000 100000\n", "a/cpu.max": "400000 100000\n"}, "/a/b", "/", 4, id="the least"
        ),
        pytest.param(2, {"cpu.max": "200000 100000\n"}, "/../other", "/", 2, id="a group outside of the namespace"),
        pytest.param(2, {"cpu.max": "what\n"}, "/", "/", 8, id="something else"),
        pytest.param(1, version_1("", -1), "/", "/", 8, id="version 1 without a limit"),
        pytest.param(1, version_1("", 250_000), "/docker/0c1d", "/docker/0c1d", 3, id="version 1 in a container"),
        pytest.param(1, version_1("", 250_000), "/docker/0c1d", "/", 3, id="version 1 with a hidden group"),
        pytest.param(
            1, {**version_1("a/b", -1), **version_1("a", 100_000)}, "/a/b", "/", 1, id="version 1 of the parent"
        ),
    ],
)  # fmt: skip
def test_a_quota_counts_like_cores(
    tmp_path: Path, version: int, files: dict[str, str], own: str, top: str, expected: int
) -> None:
    assert available_cores(fake_proc(tmp_path, version, files, own, top)) == expected


def test_a_controller_of_version_1_beside_an_empty_hierarchy_of_version_2(tmp_path: Path) -> None:
    """The hybrid layout of systemd and others."""
    proc = fake_proc(tmp_path, 1, version_1("", 200_000))
    with (proc / "cgroup").open("a") as groups, (proc / "mountinfo").open("a") as mounts:
        groups.write("0::/\n")
        mounts.write(f"32 21 0:28 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n")
    assert available_cores(proc) == 2


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "absent") == 8


# A process of its own, which goes into a group before anything asks for cores.
COUNT = """
import json, os, sys, threading
open(os.path.join(sys.argv[1], "cgroup.procs"), "w").write(str(os.getpid()))
import faiss, numpy as np
from indexer.stores.faiss import FaissStore
from indexer.stores.precision import Storage
from model.cores import available_cores
from model.embedder import Embedder
from model.parallel import decode_pool
from model.runtimes.openvino import PHOTOS_PER_STREAM
from service.settings import Settings

told = {"cores": available_cores(), "settings": Settings().search_threads}
told["streams"] = Embedder.load("resnet18", "openvino").batch // PHOTOS_PER_STREAM
rows = np.eye(8, dtype=np.float32)
FaissStore.create(rows, Storage("fp32")).search(rows, 3)
told["faiss"] = faiss.omp_get_max_threads()
done, before = threading.Event(), threading.active_count()
with decode_pool() as pool:
    for _ in range(20):
        pool.submit(done.wait)
    told["decoder"] = threading.active_count() - before
    done.set()
print(json.dumps(told))
"""


@pytest.mark.parametrize("quota", [1.0, 0.5])
def test_everything_that_makes_threads_keeps_to_the_quota_of_a_real_group(quota: float) -> None:
    """The quota is the parent's; the process is in a group without one."""
    with limited_group(quota) as group:
        done = subprocess.run([sys.executable, "-c", COUNT, group], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == {"cores": 1, "settings": 1, "streams": 1, "faiss": 1, "decoder": 1}
