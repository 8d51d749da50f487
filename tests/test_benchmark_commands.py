"""The commands of docs/benchmark.md, on fewer photos and epochs."""

import re
from pathlib import Path

from tests.photos import write_gallery
from tests.test_readme import ROOT, commands, run, write_sets


def test_the_commands_of_the_benchmark_render_a_few_photos_of_each_split(tmp_path: Path) -> None:
    lines = commands(ROOT / "docs" / "benchmark.md")
    small = [re.sub(r" --scale [\d.]+", "", line) + " --scale 0.001" for line in lines if " render " in line]
    *others, tenth = small
    others.append("cp -r rendered/test rendered/tenth")  # a tenth of the same photos: this small they are the same
    run([*others, tenth], tmp_path)
    photos = {split: list((tmp_path / "rendered" / split).glob("*/*.jpg")) for split in ("train", "test")}
    assert {split: len({path.parent for path in paths}) for split, paths in photos.items()} == {"train": 84, "test": 78}
    assert {path.parent.name for path in photos["train"]}.isdisjoint(path.parent.name for path in photos["test"])


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
