"""Two evaluations, photo by photo: flips, the interval of the difference and McNemar's test, worked by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from indexer.benchmark.compare import Earlier, change, compare, mcnemar, read_earlier
from indexer.benchmark.evaluate import score
from indexer.benchmark.report import Answer, Evaluation
from indexer.embed import Embedded
from model.errors import DataInvalid
from tests.unit.indexer.sets import MemoryPhoto, unit

ROWS = {"a1": (1, 0), "a2": (1, 0.1), "b1": (0, 1), "b2": (0.1, 1)}
"""Photos of the classes a and b; the nearest of each is the other one of its class."""


def scored(rows: Mapping[str, Sequence[float]], versions: dict[str, str]) -> Evaluation:
    """Leave-one-out on photos whose class is the first letter of their id."""
    photos = [Embedded(MemoryPhoto(name, name[0]), name, unit([row])[0]) for name, row in rows.items()]
    return score(photos, [], None, versions)


def written(evaluation: Evaluation, path: Path) -> Earlier:
    """As `carsearch evaluate --report` writes it, read again."""
    path.write_text(json.dumps(evaluation.to_json()), encoding="utf-8")
    return read_earlier(path)


def test_photos_that_flipped_are_told_with_both_answers(tmp_path: Path) -> None:
    before = scored({**ROWS, "b2": (1, 0.3), "b3": (0.5, 1)}, {"model": "old", "runtime": "fake"})
    now = scored({**ROWS, "a3": (1, 0.05)}, {"model": "new", "runtime": "fake"})
    found = compare(now, written(before, tmp_path / "old.json"))
    assert (found.name, found.photos, found.only_before, found.only_now) == ("old.json", 4, 1, 1)
    assert found.versions == {"model": ("old", "new")}
    assert [(flip.now.id, flip.before.nearest, flip.now.nearest) for flip in found.gained] == [("b2", "a2", "b1")]
    assert [flip.now.id for flip in found.lost] == []
    assert (found.top1.gained, found.top1.lost) == (1, 0)
    assert (found.top1.before, found.top1.now, found.top1.difference) == (0.75, 1.0, 0.25)
    assert found.to_json()["gained"] == ["b2"]
    assert found.to_json()["top1"]["difference"] == 0.25


def test_an_evaluation_is_unchanged_beside_itself(tmp_path: Path) -> None:
    evaluation = scored(ROWS, {"model": "same"})
    found = compare(evaluation, written(evaluation, tmp_path / "same.json"))
    assert (found.top1.difference, found.top1.ci95, found.top1.p_value) == (0, (0, 0), 1)
    assert (found.versions, found.gained, found.lost) == ({}, [], [])
    assert found.decided is not None


def test_the_difference_is_paired_and_its_interval_is_over_classes() -> None:
    # The same five photos of each class are right before and now, but for one of ten classes that lost all.
    labels = [f"class {number}" for number in range(10) for _ in range(10)]
    before = [place % 10 < 5 for place in range(100)]
    now = [right and label != "class 0" for right, label in zip(before, labels, strict=True)]
    found = change(before, now, labels)
    assert (found.before, found.now, found.gained, found.lost) == (0.5, 0.45, 0, 5)
    assert found.ci95.low == pytest.approx(-0.15, abs=0.03)  # the class is drawn up to three times of ten
    assert found.ci95.high == 0
    assert found.p_value == 2 / 2**5


def test_mcnemar_is_the_exact_test() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(1, 4) == mcnemar(4, 1) == 2 * (1 + 5) / 32
    assert mcnemar(2, 8) == 2 * (1 + 10 + 45) / 1024
    assert mcnemar(4000, 4400) < 2e-5


def test_evaluations_of_other_photos_cannot_be_compared() -> None:
    earlier = Earlier("old.json", {}, [Answer("x", "a", "y", "a", 0.5, None, None)])
    with pytest.raises(DataInvalid, match=r"No photo of this set is in old\.json"):
        compare(scored(ROWS, {}), earlier)


def test_a_report_of_before_says_so_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(scored(ROWS, {}).report.to_json()), encoding="utf-8")
    with pytest.raises(DataInvalid, match="of a release that did not write the answer to each photo; evaluate again"):
        read_earlier(path)
    for text in ('{"answers": [1]}', '{"answers": [{"id": "a"}], "mode": "gallery", "versions": {}}', "{}"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataInvalid, match="is no report that carsearch evaluate --report wrote"):
            read_earlier(path)
