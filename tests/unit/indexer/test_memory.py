"""What memory is left, as a container and the machine say it."""

import math
from pathlib import Path

import pytest

from indexer.memory import available_bytes, memory_limit_bytes
from tests.support.control_groups import fake_proc

MEMINFO = "MemTotal:       2048 kB\nMemFree:          10 kB\nMemAvailable:   1000 kB\nHugePages_Total:       0\n"
OF_THE_MACHINE = 1000 * 1024


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    return path


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, OF_THE_MACHINE),
        ({"memory.max": "max\n", "memory.current": "9000000\n"}, OF_THE_MACHINE),
        ({"memory.max": "9000000\n", "memory.current": "1000\n", "memory.stat": "anon 5\n"}, OF_THE_MACHINE),
        ({"memory.max": "500000\n"}, 500_000),
        (
            {
                "memory.max": "500000\n",
                "memory.current": "400000\n",
                "memory.stat": "anon 100000\nfile 300000\ninactive_file 200000\nactive_file 50000\n",
            },
            350_000,
        ),
        ({"memory.max": "500000\n", "memory.current": "600000\n"}, 0),
    ],
    ids=["no cgroup", "no limit", "a large limit", "nothing in use", "in use", "more than the limit"],
)
def test_pages_of_files_count_as_free_and_the_smaller_rest_is_what_is_left(
    tmp_path: Path, meminfo: Path, files: dict[str, str], left: int
) -> None:
    assert available_bytes(fake_proc(tmp_path, 2, files), meminfo) == left


def test_where_nobody_says_there_is_no_end_of_it(tmp_path: Path) -> None:
    assert available_bytes(tmp_path, tmp_path / "absent") == math.inf


def test_this_machine_says_something() -> None:
    assert 0 < available_bytes() < math.inf


@pytest.mark.parametrize(
    ("file", "told", "limit_bytes"),
    [
        ("memory.max", "2147483648\n", 2**31),
        ("memory.max", "max\n", math.inf),
        ("elsewhere", "1000", math.inf),
    ],
)
def test_a_container_knows_its_memory_limit(tmp_path: Path, file: str, told: str, limit_bytes: float) -> None:
    assert memory_limit_bytes(fake_proc(tmp_path, 2, {file: told})) == limit_bytes


def test_the_least_limit_of_a_group_and_its_parents_holds(tmp_path: Path, meminfo: Path) -> None:
    """A systemd unit sees the machine's groups, its own among them."""
    files = {
        "system.slice/memory.max": "400000\n",
        "system.slice/memory.current": "300000\n",
        "system.slice/carsearch.service/memory.max": "500000\n",
        "system.slice/carsearch.service/memory.current": "1000\n",
    }
    proc = fake_proc(tmp_path, 2, files, own="/system.slice/carsearch.service")
    assert memory_limit_bytes(proc) == 400_000
    assert available_bytes(proc, meminfo) == 100_000
