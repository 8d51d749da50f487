"""Chooses the demo's gallery from the rendered test split: a few photos of each car of some names, and queries."""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.rendered_cars.catalogue import cars
from bench.rendered_cars.plan import HEADINGS, TIMES
from bench.rendered_cars.render import RECORD_NAME
from model.errors import DataInvalid
from model.names import normalise_label
from model.storage import FileRecord, read_json, write_durably
from service.demo.gallery import CONTENTS_NAME, PHOTOS_FOLDER, Query

CLASSES = 24
PHOTOS_A_CLASS = 11
QUERIES = 4
MAX_BYTES = 12_000_000
QUERIES_FOLDER = "queries"


class DemoGalleryRefused(DataInvalid, code="demo_gallery_refused"):
    """A folder that the demo's gallery cannot be made from, or cannot be written to."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The counts of what was chosen; `bytes` is the size of all files together."""

    photos: int
    classes: int
    cars: int
    queries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Shot:
    """One rendered photo: `turn` is its heading's place among the headings, `time` its time's among the times."""

    label: str
    car: int
    turn: int
    time: int
    path: Path


def choose(
    rendered: Path,
    out: Path,
    *,
    classes: int = CLASSES,
    photos_a_class: int = PHOTOS_A_CLASS,
    queries: int = QUERIES,
    max_bytes: int = MAX_BYTES,
) -> Chosen:
    """Copies the demo's gallery and its queries out of a rendered test split; equal photos give equal choices.

    Names with several cars come first, so that leaving one photo out leaves other cars of its name to be found. A class
    gives each of its cars the same number of photos, at headings and times that are spread evenly. A query is another
    photo of a car that the gallery has. Raises DemoGalleryRefused.
    """
    order = _order(rendered)
    known = {car.name for car in cars("test", order["seed"])}
    shots = _read(rendered)
    strange = sorted(shots.keys() - known)
    if strange:
        raise DemoGalleryRefused(
            f'"{strange[0]}" in {rendered} is not a name of the test split; render it into a new folder.'
        )
    if len(shots) < classes:
        raise DemoGalleryRefused(
            f"{rendered} has {len(shots)} names and {classes} are wanted; render more of the split."
        )
    _empty(out)
    chosen = {label: _of_class(shots[label], photos_a_class) for label in _names(shots, classes)}
    queried = _queries(shots, chosen, queries)
    for shot in (shot for some in chosen.values() for shot in some):
        _copy(shot.path, out / PHOTOS_FOLDER / shot.label / shot.path.name)
    records = []
    for number, shot in enumerate(queried, 1):  # plain names: they stand in commands that people copy
        records.append(Query(f"{QUERIES_FOLDER}/{number}.jpg", shot.label, f"{shot.label}/{shot.path.name}"))
        _copy(shot.path, out / records[-1].file)
    write_contents(out, records, order)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if size > max_bytes:
        raise DemoGalleryRefused(
            f"The gallery in {out} has {size} bytes and may have {max_bytes}; choose fewer photos."
        )
    return Chosen(
        photos=sum(map(len, chosen.values())),
        classes=len(chosen),
        cars=len({(shot.label, shot.car) for some in chosen.values() for shot in some}),
        queries=len(queried),
        bytes=size,
    )


def _order(rendered: Path) -> dict[str, Any]:
    """How the folder was rendered, as its record says."""
    if not (rendered / RECORD_NAME).is_file():
        raise DemoGalleryRefused(f"{rendered} was not made by `python -m bench render`; render the test split first.")
    record = read_json(rendered / RECORD_NAME, DemoGalleryRefused)
    if record.get("split") != "test" or not isinstance(record.get("seed"), int):
        raise DemoGalleryRefused(f"{rendered} is not a rendered test split; networks are trained on the other.")
    return {name: record[name] for name in ("renderer", "split", "seed", "likeness") if name in record}


def _read(rendered: Path) -> dict[str, list[_Shot]]:
    """The photos of a folder by class, ordered by name."""
    found: dict[str, list[_Shot]] = defaultdict(list)
    for path in sorted(rendered.glob("*/*.jpg")):
        if path.name.startswith("."):
            continue
        label = normalise_label(path.parent.name)
        try:  # generations and colours may hold hyphens
            _, car, heading, time = path.stem.rsplit("-", 3)
            shot = _Shot(label, int(car), HEADINGS.index(int(heading)), [str(one) for one in TIMES].index(time), path)
        except ValueError as problem:
            raise DemoGalleryRefused(
                f"{path} is not named like a rendered photo; render into a new folder."
            ) from problem
        found[label].append(shot)
    return found


def _names(shots: dict[str, list[_Shot]], classes: int) -> list[str]:
    """Names with several cars first, and otherwise in the order of their hashes."""

    def rank(label: str) -> tuple[bool, bytes]:
        several = len({shot.car for shot in shots[label]}) > 1
        return not several, hashlib.sha256(label.encode()).digest()

    return sorted(shots, key=rank)[:classes]


def _of_class(shots: Sequence[_Shot], photos: int) -> list[_Shot]:
    """Photos of one name, shared evenly among its cars."""
    numbers = sorted({shot.car for shot in shots})
    found: list[_Shot] = []
    for place, number in enumerate(numbers):
        share = (place + 1) * photos // len(numbers) - place * photos // len(numbers)
        found += _spread([shot for shot in shots if shot.car == number], share, number)
    return found


def _spread(shots: Sequence[_Shot], count: int, car: int) -> list[_Shot]:
    """`count` photos of one car, at evenly spaced headings and all times of day; each car starts at another heading."""
    left = list(shots)
    found: list[_Shot] = []
    for step in range(min(count, len(left))):
        turn = 7 * car + step * len(HEADINGS) / count
        time = (car + step) % len(TIMES)
        best = min(left, key=lambda shot: (_between(shot.turn, turn), shot.time != time, shot.turn, shot.time))
        found.append(best)
        left.remove(best)
    return found


def _between(first: float, second: float) -> float:
    """Steps of heading between two directions, the shorter way around."""
    apart = abs(first - second) % len(HEADINGS)
    return min(apart, len(HEADINGS) - apart)


def _queries(shots: dict[str, list[_Shot]], chosen: dict[str, list[_Shot]], count: int) -> list[_Shot]:
    """Queries of different names and times: photos that the gallery lacks, near ones that it has."""
    labels = list(chosen)
    found: list[_Shot] = []
    for place in range(count):
        gallery = chosen[labels[place * len(labels) // count]]
        taken = {shot.path for shot in gallery}
        numbers = {shot.car for shot in gallery}
        rest = [shot for shot in shots[gallery[0].label] if shot.path not in taken and shot.car in numbers]
        if not rest:
            raise DemoGalleryRefused(
                f'All photos of "{gallery[0].label}" are in the gallery; choose fewer of each class.'
            )

        def rank(
            shot: _Shot, gallery: Sequence[_Shot] = gallery, time: int = place % len(TIMES)
        ) -> tuple[bool, float, str]:
            same = [one for one in gallery if (one.car, one.time) == (shot.car, shot.time)]
            steps = min((_between(one.turn, shot.turn) for one in same), default=float(len(HEADINGS)))
            return shot.time != time, steps, shot.path.name

        found.append(min(rest, key=rank))
    return found


def _empty(out: Path) -> None:
    """Removes an earlier gallery; refuses any other folder that is not empty."""
    if out.exists() and any(out.iterdir()):
        if not (out / CONTENTS_NAME).is_file():
            raise DemoGalleryRefused(f"{out} holds something else already; name another folder.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def write_contents(directory: Path, queries: Sequence[Query], rendered: Mapping[str, Any]) -> None:
    """Writes `contents.json` for the photos that lie in a directory; `rendered` says how they were made."""
    paths = sorted(path for path in directory.rglob("*.jpg") if path.is_file())
    files = {os.fspath(path.relative_to(directory)): asdict(FileRecord.of(path)) for path in paths}
    contents = {"rendered": dict(rendered), "queries": [asdict(query) for query in queries], "files": files}
    write_durably(directory / CONTENTS_NAME, (json.dumps(contents, indent=1, ensure_ascii=False) + "\n").encode())
