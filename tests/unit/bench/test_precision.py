"""The comparison of two precisions: the benchmark of each, and the difference paired photo by photo."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import precision
from bench.cli import app
from bench.precision import ALL, compare
from indexer.benchmark.evaluate import evaluate
from model.dataset import read_items
from model.embedder import Embedder
from model.errors import PrecisionMissing
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
