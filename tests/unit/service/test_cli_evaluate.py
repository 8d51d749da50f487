"""`carsearch evaluate`: its report for people, and what changed since an earlier one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.benchmark.compare import Change, Comparison
from model.retrieval import Interval
from service.cli.output import comparison_sentence
from tests.conftest import Printed
from tests.support.photos import car_photo, write_gallery


def test_a_report_for_people_tells_what_changed_since_an_earlier_one(
    carsearch: Callable[..., Printed], tmp_path: Path
) -> None:
    data, before, page = write_gallery(tmp_path / "my photos"), tmp_path / "before.json", tmp_path / "report.html"
    evaluate = ("evaluate", "--data", data, "--model", "resnet18")
    assert carsearch(*evaluate, "--report", before).returncode == 0
    assert len(json.loads(before.read_text())["answers"]) == 12
    (data / "car 1" / "0.jpg").write_bytes(car_photo(2, 9))
    printed = carsearch(*evaluate, "--html", page, "--compare", before, "--json")
    assert printed.returncode == 0, printed.stderr
    told = json.loads(printed.stdout)["comparison"]
    assert "car 1/0.jpg" in told["lost"]
    assert told["top1"]["difference"] < 0
    html = page.read_text(encoding="utf-8")
    assert "Evaluation of <bdi>my photos</bdi>" in html
    assert "What changed since <bdi>before.json</bdi>" in html


def test_a_report_of_an_earlier_release_is_refused_before_the_photos_are_read(
    carsearch: Callable[..., Printed], tmp_path: Path
) -> None:
    (tmp_path / "old.json").write_text('{"top1": 0.5}')
    printed = carsearch("evaluate", "--data", tmp_path / "missing", "--compare", tmp_path / "old.json")
    assert printed.returncode == 1
    assert "did not write the answer to each photo; evaluate again" in printed.stderr


def test_what_changed_is_told_in_a_line() -> None:
    top1 = Change(before=0.75, now=0.5, ci95=Interval(-0.5, 0.1), gained=1, lost=2, p_value=1.0)
    told = comparison_sentence(Comparison("before.json", 4, 0, 0, top1, None, {}, [], []))
    assert told == (
        "Since before.json, on 4 photos: top-1 -25.00 points (95% over classes -50.00 to +10.00); 1 became right, "
        "2 wrong (McNemar p = 1.000)."
    )


@pytest.mark.parametrize("option", ["--report", "--html", "--predictions", "--copies"])
def test_a_file_whose_folder_is_missing_is_refused_before_the_work(
    carsearch: Callable[..., Printed], tmp_path: Path, option: str
) -> None:
    printed = carsearch("evaluate", "--data", tmp_path / "none", option, tmp_path / "missing" / "file")
    assert printed.returncode == 1
    assert printed.stderr.endswith("missing/file: No such file or directory.\n")
