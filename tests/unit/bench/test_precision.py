"""The comparison of two precisions: the benchmark of each, and the difference paired photo by photo."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import precision
from bench.cli import app
from bench.precision import ALL, compare, paired_over_photos
from indexer.benchmark.evaluate import evaluate
from model.dataset import read_items
from model.embedder import Embedder
from model.errors import PrecisionMissing
from model.retrieval import bootstrap_over_classes, bootstrap_over_photos
from tests.support.photos import write_gallery


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two labelled sets, of classes that are none of each other's; one photo of the first cannot be read."""
    folder = tmp_path_factory.mktemp("sets")
    found = [write_gallery(folder / "rendered", 4, 3, first_kind=50), write_gallery(folder / "real", 3, 2, 70)]
    (found[0] / "car 50" / "broken.jpg").write_bytes(b"no photo")
    return found


def test_each_precision_scores_as_the_benchmark_says_and_the_difference_is_theirs(
    int8_model: Path, sets: list[Path]
) -> None:
    found = compare(int8_model, sets)
    assert [(one.set, one.photos, one.classes) for one in found.sets] == [
        (str(sets[0]), 12, 4),
        (str(sets[1]), 6, 3),
        (ALL, 18, 7),
    ]
    for name, runtime in (("int8", "openvino"), ("fp32", "openvino")):
        embedder = Embedder.load(int8_model, runtime, name)
        for one, data in zip(found.sets, sets, strict=False):
            report = evaluate(read_items(data).items, embedder).report
            share = getattr(one, name)
            assert share.top1 == report.top1
            assert (share.ci95.low, share.ci95.high) == report.ci95
        assert found.versions[name]["embedding_id"] == embedder.embedding_id
    for one in found.sets:
        assert one.difference == pytest.approx(one.int8.top1 - one.fp32.top1)
        assert one.difference == pytest.approx((one.gained - one.lost) / one.photos)
        for interval in (one.ci95, one.ci95_photos):
            assert interval.low <= one.difference <= interval.high


def test_sets_are_pooled_with_classes_of_their_own() -> None:
    right = np.array([True, False])
    one, other = (precision._Answers(right, ~right, np.array(classes)) for classes in ([0, 1], [1, 0]))
    assert precision._pooled([one, other, one]).classes.tolist() == [0, 1, 3, 2, 4, 5]


def test_fp32_is_torch_where_there_is_no_such_graph(int8_model: Path, real_model: Path, sets: list[Path]) -> None:
    found = compare(int8_model, sets[1:], reference="torch")
    assert [one.set for one in found.sets] == [str(sets[1])]
    assert (found.versions["fp32"]["runtime"], found.versions["int8"]["runtime"]) == ("torch", "openvino")
    with pytest.raises(PrecisionMissing, match="no OpenVINO graph in int8"):
        compare(real_model, sets)


def test_the_command_prints_points_and_writes_json(int8_model: Path, sets: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "precision.json"
    data = [argument for one in sets for argument in ("--data", str(one))]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, ["precision", "--model", str(int8_model), *data, "--report", str(out)]
    )
    assert done.exit_code == 0, done.output
    written = json.loads(out.read_text(encoding="utf-8"))
    assert [one["set"] for one in written["sets"]] == [*map(str, sets), ALL]
    for one in written["sets"]:
        assert f"{100 * one['difference']:+.2f}" in done.output
        assert f"{one['int8']['top1']:.4f}" in done.output


def test_a_paired_difference_is_known_more_closely_than_the_means_it_is_of() -> None:
    random = np.random.default_rng(7)
    before, classes = random.random(2000) < 0.6, random.integers(0, 25, 2000)
    after = before ^ (random.random(2000) < 0.02)
    difference = after.mean() - before.mean()
    alone = bootstrap_over_photos(after)
    for paired in (paired_over_photos(before, after), bootstrap_over_classes(after.astype(float) - before, classes)):
        assert paired.low < difference < paired.high
        assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    assert paired_over_photos(before, after) == paired_over_photos(before, after)


def test_the_paired_interval_over_photos_is_that_of_independent_signs() -> None:
    """40 of 1000 photos gained and 10 lost: the mean of 1000 draws of +1, -1 and 0 (McNemar's pairs)."""
    before = np.arange(1000) < 10
    after = np.arange(1000) >= 960
    interval = paired_over_photos(before, after)
    half_width = 1.96 * np.sqrt((0.04 + 0.01 - 0.03**2) / 1000)
    assert [interval.low, interval.high] == pytest.approx([0.03 - half_width, 0.03 + half_width], abs=0.002)


def test_a_difference_that_lies_in_one_class_is_uncertain_over_classes() -> None:
    classes = np.repeat(np.arange(20), 10)
    before = np.ones(200, bool)
    after = classes != 3
    over_classes, over_photos = (
        bootstrap_over_classes(after.astype(float) - before, classes),
        paired_over_photos(before, after),
    )
    assert (over_classes.low, over_classes.high) == pytest.approx((-0.15, 0.0))
    assert over_photos.high < 0


def test_the_same_answers_have_no_difference_and_no_width() -> None:
    same = np.arange(60) % 3 == 0
    for interval in (paired_over_photos(same, same), bootstrap_over_classes(np.zeros(60), np.arange(60) % 5)):
        assert (interval.low, interval.high) == (0, 0)
