"""Renders the photos of a split to a folder in several processes; an interrupted run can be continued."""

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
    from bench.rendered_cars.studio import Studio

RENDERER = 1
"""Incremented whenever the same plan gives other photos, so that a folder never mixes two versions."""

RECORD_NAME = ".render.json"
"""Hidden, so that it is not read as a photo."""

PARTIAL_SUFFIX = ".partial"
THREADS = ("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Progress = Callable[[int, int], None]


class FolderTaken(DataInvalid, code="folder_taken"):
    """A folder that holds photos of another benchmark."""


class RenderingDied(CarsearchError, code="rendering_died"):
    """A rendering process was killed or ran out of memory."""


@dataclass(frozen=True)
class Order:
    """What to render. Equal orders give the same photos, byte for byte, on one kind of machine."""

    split: Split
    seed: int
    likeness: float
    scale: float


@dataclass(frozen=True)
class Rendered:
    """The counts of a folder after rendering."""

    photos: int  # in the folder now
    made: int  # of them by this call
    classes: int
    cars: int


def render(order: Order, folder: Path, workers: int | None = None, progress: Progress | None = None) -> Rendered:
    """Renders the photos of an order that the folder lacks; `progress` gets (done, total) photos.

    Raises PlanInvalid, FolderTaken, RenderingDied, ModuleNotFoundError and OSError.
    """
    if not 0 <= order.likeness <= 1:
        raise PlanInvalid(f"--likeness is {order.likeness}; it must be from 0 to 1.")
    if importlib.util.find_spec("pyvista") is None:  # reported here, not by a worker process
        raise ModuleNotFoundError("No module named 'pyvista'", name="pyvista")
    from bench.rendered_cars.catalogue import cars

    catalogue = cars(order.split, order.seed, order.likeness)
    planned = shots(catalogue, order.split, order.seed, order.scale)
    _claim(folder, order, len(planned), len({car.name for car in catalogue}))
    took = take_all(catalogue, planned, order.seed, folder, workers, progress)
    return Rendered(len(planned), took, len({car.name for car in catalogue}), len({shot.car for shot in planned}))


def take_all(
    cars: "Sequence[Car]",
    planned: Sequence[Shot],
    seed: int,
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Renders the planned photos that a folder lacks and returns their number.

    Raises RenderingDied, ModuleNotFoundError and OSError.
    """
    missing = [shot for shot in planned if not (folder / shot.path).is_file()]
    done = len(planned) - len(missing)
    tell: Progress = progress or (lambda _done, _total: None)
    tell(done, len(planned))
    batches = [(cars[number], tuple(shots)) for number, shots in groupby(missing, lambda shot: shot.car)]
    for count in _taken(batches, seed, folder, min(workers or len(os.sched_getaffinity(0)), len(batches))):
        done += count
        tell(done, len(planned))
    return len(missing)


def _taken(batches: "Sequence[tuple[Car, tuple[Shot, ...]]]", seed: int, folder: Path, workers: int) -> Iterator[int]:
    """The number of photos of each finished batch."""
    if not batches:
        return
    # Spawned, because a process with threads must not be forked. Each worker takes one thread, and libraries read that
    # from the environment when they are loaded.
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
"""The studio of this worker; opening one takes longer than a photo."""
_STOP: "list[Event]" = []
"""Set when the parent stops."""


def _begin(stop: "Event") -> None:
    """Prepares a worker: it ignores Ctrl-C, and the parent stops it by the event."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _STOP.append(stop)


def take(car: "Car", shots: Sequence[Shot], seed: int, folder: str) -> int:
    """Renders photos of one car and returns their number; a file appears under its name when it is complete."""
    from bench.rendered_cars.assembly import build
    from bench.rendered_cars.studio import Studio

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
    """Writes a file that appears whole, by a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")  # hidden; the next run overwrites it
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
