"""How many threads a search takes: as many as it is told, in whichever thread it is asked."""

import json
import subprocess
import sys

import pytest

# A process of its own: threads that OpenMP made once stay, so that only a fresh process shows who makes them.
COUNT = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
import faiss, numpy as np
from indexer.stores.faiss import FaissStore
from indexer.stores.precision import Storage
from model.cores import available_cores

threads, queries, storage = json.loads(sys.argv[1]), int(sys.argv[2]), Storage(sys.argv[3])
rows = np.random.default_rng(0).standard_normal((12_000, 64)).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
faiss.omp_set_num_threads(1)
store = FaissStore.create(rows, storage)
faiss.omp_set_num_threads(7)  # of the main thread; a worker's is another

def search():
    before = len(os.listdir("/proc/self/task"))
    store.search(rows[:queries], 3, threads=threads)
    return faiss.omp_get_max_threads(), len(os.listdir("/proc/self/task")) - before

with ThreadPoolExecutor(1) as pool:
    print(json.dumps([pool.submit(search).result(), faiss.omp_get_max_threads(), available_cores()]))
"""


def threads_of(threads: int | None, queries: int, storage: str) -> tuple[int, int, int, int]:
    """OpenMP's number in the worker, threads that the search started, OpenMP's number in the main thread, cores."""
    command = [sys.executable, "-c", COUNT, json.dumps(threads), str(queries), storage]
    (inside, started), main, cores = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return inside, started, main, cores


@pytest.mark.parametrize("storage", ["fp32", "sq8"])
@pytest.mark.parametrize("queries", [1, 8, 256])  # one alone; by rows, and in fp32 as matrices
def test_a_search_of_one_thread_starts_none(queries: int, storage: str) -> None:
    inside, started, main, _ = threads_of(1, queries, storage)
    assert (inside, started) == (1, 0)
    assert main == 7


@pytest.mark.parametrize(("queries", "storage"), [(256, "fp32"), (8, "sq8")])
def test_a_search_of_three_threads_starts_two_beside_its_own(queries: int, storage: str) -> None:
    assert threads_of(3, queries, storage)[:2] == (3, 2)


def test_a_search_takes_the_cores_of_the_process_when_it_is_not_told() -> None:
    inside, started, _, cores = threads_of(None, 256, "fp32")
    assert (inside, started) == (cores, cores - 1)
