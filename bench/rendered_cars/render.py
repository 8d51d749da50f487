"""A benchmark on disk: photos taken by several processes, each once, whatever interrupts them."""

import importlib.util
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.rendered_cars.plan import PlanInvalid, Shot, Split, Time, shots
from model.errors import CarsearchError, DataInvalid

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

    from bench.rendered_cars.catalogue import Car
    from bench.rendered_cars.frame import Studio

RENDERER = 1
"""Raised whenever the same plan gives other photos, so that two kinds never lie in one folder."""

RECORD_NAME = ".render.json"
"""Hidden: whoever reads the photos reads past it."""

PARTIAL_SUFFIX = ".partial"
THREADS = ("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Progress = Callable[[int, int], None]


class FolderTaken(DataInvalid):
    """A folder that holds photos of another benchmark."""

    code = "folder_taken"


class RenderingDied(CarsearchError):
    """A process that took photos ended before its work did: killed, or out of memory."""

    code = "rendering_died"


@dataclass(frozen=True)
class Order:
    """What to render: two equal orders give the same photos, byte for byte, on one kind of machine."""

    split: Split
    seed: int
    likeness: float
    scale: float


@dataclass(frozen=True)
class Rendered:
    """What came of an order."""

    photos: int  # in the folder now
    made: int  # of them by this call
    classes: int
    cars: int


def render(order: Order, folder: Path, workers: int | None = None, progress: Progress | None = None) -> Rendered:
    """Renders what an order names and the folder lacks; `progress` is told (done, total) photos.

    Raises PlanInvalid, FolderTaken, RenderingDied, ModuleNotFoundError and OSError.
    """
    if not 0 <= order.likeness <= 1:
        raise PlanInvalid(f"--likeness is {order.likeness}; it must be from 0 to 1.")
    if importlib.util.find_spec("pyvista") is None:  # said now, and not by the first of many processes
        raise ModuleNotFoundError("No module named 'pyvista'", name="pyvista")
    from bench.rendered_cars.catalogue import cars

    catalogue = cars(order.split, order.seed, order.likeness)
    planned = shots(catalogue, order.split, order.seed, order.scale)
    _claim(folder, order, len(planned), len({car.name for car in catalogue}))
    took = take_all(catalogue, planned, order.seed, folder, workers, progress)
    return Rendered(len(planned), took, len({car.name for car in catalogue}), len({shot.car for shot in planned}))


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def take_all(
    cars: "Sequence[Car]",
    planned: Sequence[Shot],
    seed: int,
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Takes those of the planned photos that a folder lacks; how many that were.

    Raises RenderingDied, ModuleNotFoundError and OSError.
    """
    missing = [shot for shot in planned if not (folder / shot.path).is_file()]
    done = len(planned) - len(missing)
    tell: Progress = progress if progress is not None else _tell_nobody
    tell(done, len(planned))
    batches = [(cars[number], tuple(shots)) for number, shots in groupby(missing, lambda shot: shot.car)]
    for count in _taken(batches, seed, folder, min(workers or cores(), len(batches))):
        done += count
        tell(done, len(planned))
    return len(missing)


def _tell_nobody(done: int, total: int) -> None:
    """For callers that do not want to know."""


def _taken(batches: "Sequence[tuple[Car, tuple[Shot, ...]]]", seed: int, folder: Path, workers: int) -> Iterator[int]:
    """How many photos each finished batch has brought."""
    if not batches:
        return
    # The children of a process that has started threads must not be its copies; and they must know before they load
    # anything that one thread each is enough, or they would take the machine from each other.
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, _begin, (stop,))
    try:
        futures = [pool.submit(take, car, shots, seed, str(folder)) for car, shots in batches]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as problem:
        raise RenderingDied("A rendering process died; the same command goes on from here.") from problem
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


_STUDIO: "list[Studio]" = []
"""The studio of this process: opening one takes longer than a photo."""
_STOP: "list[Event]" = []
"""What tells this process that nobody waits for its photos any more."""


def _begin(stop: "Event") -> None:
    """Prepares a worker: Ctrl-C is for the parent, which tells its workers once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _STOP.append(stop)


def take(car: "Car", shots: Sequence[Shot], seed: int, folder: str) -> int:
    """Takes photos of one car, each under its own name only when it is complete; how many."""
    from bench.rendered_cars.body import build
    from bench.rendered_cars.frame import Studio

    if not _STUDIO:
        _STUDIO.append(Studio())
    studio = _STUDIO[0]
    for lit in (False, True):
        now = [shot for shot in shots if (shot.time is Time.NIGHT) is lit]
        if now:
            studio.enter(build(car, lamps_lit=lit))
        for shot in now:
            if any(stop.is_set() for stop in _STOP):
                return 0
            write_whole(Path(folder, shot.path), studio.photo(shot.heading, shot.time, shot.entropy(seed)))
    return len(shots)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is there as a whole or not at all, even when the power fails in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")  # hidden, and the next run writes over it
    partial.write_bytes(data)
    partial.replace(path)


def _claim(folder: Path, order: Order, photos: int, classes: int) -> None:
    """Marks a folder as an order's, or raises FolderTaken; a larger scale may follow a smaller one."""
    record = folder / RECORD_NAME
    mine = {"renderer": RENDERER, **asdict(order), "photos": photos, "classes": classes}
    if record.exists():
        theirs = _read(record)
        for key in ("renderer", "split", "seed", "likeness"):
            if theirs.get(key) != mine[key]:
                raise FolderTaken(
                    f"{folder} holds photos with {key} {theirs.get(key)}, not {mine[key]}; name another folder."
                )
        if theirs.get("photos", 0) > photos:
            raise FolderTaken(
                f"{folder} holds a benchmark of scale {theirs.get('scale')} already; name another folder."
            )
    elif folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise FolderTaken(f"{folder} holds something else already; name another folder.")
    write_whole(record, (json.dumps(mine, indent=1) + "\n").encode())


def _read(record: Path) -> dict[str, Any]:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise FolderTaken(f"{record} is damaged; name another folder.") from problem
    if not isinstance(found, dict):
        raise FolderTaken(f"{record} is damaged; name another folder.")
    return found
