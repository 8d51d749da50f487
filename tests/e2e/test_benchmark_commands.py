"""The commands of docs/benchmark.md, on fewer photos and epochs."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from bench.rendered_cars.catalogue import LIKENESS
from bench.rendered_cars.plan import Shot, Split
from bench.rendered_cars.render import Order, render
from tests.e2e.test_readme import ROOT, RUN_S, commands, run, write_sets
from tests.support.photos import write_gallery

SCALE = 0.001
"""So few that there are no more photos than each class needs."""

STAND_IN = b"a photo that has been there before"


def interrupted(split: Split, folder: Path, missing: int) -> set[str]:
    """Leaves the smallest benchmark as if its rendering had been interrupted shortly before its end.

    The photos are stand-ins, for rendering so many takes minutes; returns the paths of the few that are missing.
    """
    few: set[str] = set()

    def place(_cars: object, planned: Sequence[Shot], *_rest: object) -> int:
        few.update(random.Random(0).sample([shot.path for shot in planned], missing))
        for path in {shot.path for shot in planned} - few:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(STAND_IN)
        return len(planned) - missing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.rendered_cars.render.take_all", place)
        render(Order(split, 0, LIKENESS, SCALE), folder)
    return few


@pytest.mark.slow
def test_the_commands_of_the_benchmark_render_the_photos_of_each_split_that_are_missing(tmp_path: Path) -> None:
    lines = commands(ROOT / "docs" / "benchmark.md")
    small = [re.sub(r" --scale [\d.]+", "", line) + f" --scale {SCALE}" for line in lines if " render " in line]
    folders: dict[str, Split] = {"train": "train", "test": "test", "tenth": "test"}
    assert [Path(line.split("--out ")[1].split()[0]).name for line in small] == list(folders)
    few = {name: interrupted(split, tmp_path / "rendered" / name, 4) for name, split in folders.items()}
    run(small, tmp_path)
    for name, split in folders.items():
        folder = tmp_path / "rendered" / name
        photos = {path.relative_to(folder).as_posix(): path for path in folder.glob("*/*.jpg")}
        assert {path for path, photo in photos.items() if photo.read_bytes() != STAND_IN} == few[name]
        assert len({path.partition("/")[0] for path in photos}) == {"train": 84, "test": 78}[split]
        for path in few[name]:
            with Image.open(photos[path]) as photo:
                assert photo.size == (512, 384)


def small_sets(folder: Path) -> None:
    """The photos that the commands name, few of each, beside and in the folder `project`."""
    write_sets(folder / "shared" / "cars")
    write_gallery(folder / "shared" / "cars" / "unlabelled", classes=3, first_kind=40)
    for number, name in enumerate(("train", "test", "tenth")):
        write_gallery(folder / "project" / "rendered" / name, classes=3, photos=4, first_kind=50 + 10 * number)


def split() -> tuple[list[str], list[str]]:
    """The commands but for rendering: those that train and use what was trained, and those of models that ship."""
    lines = [line for line in commands(ROOT / "docs" / "benchmark.md") if " render " not in line]
    return [line for line in lines if "models/" in line], [line for line in lines if "models/" not in line]


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.timeout(RUN_S)
def test_the_training_commands_of_the_benchmark_work_on_fewer_photos_and_epochs(tmp_path: Path) -> None:
    small_sets(tmp_path)
    small = [
        re.sub(r" --(epochs|crop|validate-every) \d+", "", line) + (" --epochs 1" if " train " in line else "")
        for line in split()[0]
    ]
    assert sum(" train " in line for line in small) == 4
    run(small, tmp_path / "project")


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.timeout(RUN_S)
def test_the_commands_that_score_what_ships_work_on_fewer_photos(tmp_path: Path) -> None:
    small_sets(tmp_path)
    lines = split()[1]
    assert [line.split()[:4] for line in lines[:1]] == [["python", "-m", "bench", "trivial"]]
    assert sum(" evaluate " in line for line in lines) == 6
    assert sum(" precision " in line for line in lines) == 2
    run(lines, tmp_path / "project")
