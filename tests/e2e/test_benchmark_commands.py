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

pytestmark = pytest.mark.timeout(RUN_S + 20)

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


@pytest.mark.slow
@pytest.mark.torch
def test_the_other_commands_of_the_benchmark_work_on_fewer_photos_and_epochs(tmp_path: Path) -> None:
    write_sets(tmp_path / "shared" / "cars")
    write_gallery(tmp_path / "shared" / "cars" / "unlabelled", classes=3, first_kind=40)
    for number, name in enumerate(("train", "test", "tenth")):
        write_gallery(tmp_path / "project" / "rendered" / name, classes=3, photos=4, first_kind=50 + 10 * number)
    lines = [line for line in commands(ROOT / "docs" / "benchmark.md") if " render " not in line]
    small = [
        re.sub(r" --(epochs|crop|validate-every) \d+", "", line) + (" --epochs 1" if " train " in line else "")
        for line in lines
    ]
    assert sum(" train " in line for line in small) == 3
    run(small, tmp_path / "project")
