"""The benchmark: scores worked by hand, by brute force, and on the table of the original project."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.benchmark.evaluate import evaluate, score
from indexer.benchmark.report import Evaluation
from indexer.embed import Embedded, embed_photos
from model.dataset import Photo, Skipped, read_items
from model.embedder import Embedder
from model.errors import DuplicateId, EvaluationCancelled, EvaluationSetInvalid
from model.types import Embeddings
from tests.support.photos import car_photo, write_seed_table
from tests.unit.indexer.sets import MemoryPhoto, unit, write_photos

PREDICTIONS = """\
cat/Image3.png\tcat/Image4.png
cat/Image4.png\tcat/Image3.png
dog/Image1.png\tdog/Image2.png
dog/Image2.png\tcat/Image3.png
"""
REPORT_KEYS = {
    "mode", "top1", "correct", "total", "ci95", "ci95_photos", "recall_at", "map_at_r", "classes", "per_class",
    "most_confused", "unanswerable", "skipped", "identical_in_gallery", "versions", "class_top1", "class_ci95",
    "confidence", "copies", "top1_without_copies",
}  # fmt: skip


def original_score(predictions: str) -> float:
    """The scorer of the original project: the share of queries whose nearest image is of the query's class (folder)."""
    verdicts = []
    for line in predictions.splitlines():
        query, nearest = line.split()
        verdicts.append(query.split("/")[0] == nearest.split("/")[0])
    return sum(verdicts) / len(verdicts)


def leave_one_out(labels: Sequence[str], rows: Embeddings) -> tuple[list[int], float]:
    """The definition: for each row the first of the best among all others, and the share that is of its class."""
    nearest = []
    doubles = rows.astype(np.float64)
    for row in range(len(rows)):
        scores = (doubles * doubles[row]).sum(axis=1).astype(np.float32)
        scores[row] = -np.inf
        nearest.append(int(scores.argmax()))
    return nearest, float(np.mean([labels[row] == labels[near] for row, near in enumerate(nearest)]))


def embedded(labels: Sequence[str], rows: Embeddings) -> list[Embedded]:
    return [Embedded(MemoryPhoto(str(row), labels[row]), f"{row}", rows[row]) for row in range(len(labels))]


def scored(labels: Sequence[str], rows: object) -> Evaluation:
    return score(embedded(labels, unit(rows)), [], None, {})


@pytest.mark.parametrize("shipped", [None, "resnet18"], ids=["fake", "shipped"])
def test_the_table_of_the_original_project_scores_three_of_four(
    shipped: str | None, fake_embedder: Embedder, tmp_path: Path
) -> None:
    embedder = Embedder.load(shipped) if shipped else fake_embedder
    evaluation = evaluate(read_items(write_seed_table(tmp_path)).items, embedder)
    report = evaluation.report
    assert (report.top1, report.correct, report.total, report.mode) == (0.75, 3, 4, "leave-one-out")
    assert evaluation.predictions_text() == PREDICTIONS
    assert [(one.label, one.photos, one.correct, one.top1) for one in report.per_class] == [
        ("cat", 2, 2, 1.0),
        ("dog", 2, 1, 0.5),
    ]
    assert [(one.label, one.nearest_label, one.count) for one in report.most_confused] == [("dog", "cat", 1)]
    assert "<tr><th>top-1</th><td>0.7500</td><td>" in evaluation._repr_html_()


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 40), distinct=st.integers(1, 40), classes=st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_leave_one_out_is_brute_force(seed: int, count: int, distinct: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    rows = unit(random.standard_normal((distinct, 16)))[random.integers(0, distinct, count)]
    labels = [f"class {code}" for code in random.integers(0, classes, count)]
    nearest, top1 = leave_one_out(labels, rows)
    evaluation = score(embedded(labels, rows), [], None, {})
    assert evaluation.predictions == [(str(row), str(near)) for row, near in enumerate(nearest)]
    assert evaluation.report.top1 == pytest.approx(top1, abs=1e-12)
    assert evaluation.report.unanswerable == [str(row) for row, label in enumerate(labels) if labels.count(label) == 1]
    json.dumps(evaluation.report.to_json(), allow_nan=False)


@pytest.mark.slow
def test_leave_one_out_is_brute_force_on_real_photos(cars: Path) -> None:
    items = read_items(cars / "val").items
    found = [one for batch in embed_photos(items, Embedder.load("resnet18")) for one in batch.embedded]
    assert len(found) == 1194
    labels = [one.photo.label for one in found]
    nearest, top1 = leave_one_out(labels, np.stack([one.embedding for one in found]))
    evaluation = score(found, [], None, {})
    assert evaluation.predictions == [(found[row].photo.id, found[near].photo.id) for row, near in enumerate(nearest)]
    assert evaluation.report.correct == round(top1 * 1194)


def test_recall_and_precision_worked_by_hand() -> None:
    # On a line (angles in degrees): A at 0, B at 10, A at 25, A at 45, B at 70.
    angles = np.radians([0, 10, 25, 45, 70])
    report = scored("ABAAB", np.stack([np.cos(angles), np.sin(angles)], axis=1)).report
    # Neighbours, nearest first: 0 -> B A A B, 10 -> A A A B, 25 -> B A A B, 45 -> A B B A, 70 -> A A B A.
    assert (report.top1, report.correct, report.total) == (0.2, 1, 5)
    assert report.recall_at == {"1": 0.2, "5": 1.0, "10": 1.0}
    # AP@R, with R = 2 for A and 1 for B: 1/4, 0, 1/4, 1/2, 0.
    assert report.map_at_r == pytest.approx((1 / 4 + 0 + 1 / 4 + 1 / 2 + 0) / 5)


def test_recall_at_five_counts_the_fifth_neighbour() -> None:
    angles = np.radians([0, 1, 3, 6, 10, 15, 21])
    report = scored("AxxxxAy", np.stack([np.cos(angles), np.sin(angles)], axis=1)).report
    # The first A has the other as its 5th, the other the first as its 6th; every x has an x as its 1st or 2nd.
    assert report.recall_at == {"1": 3 / 7, "5": 5 / 7, "10": 6 / 7}
    assert report.unanswerable == ["6"]


def test_a_duplicate_counts_as_a_neighbour_and_ties_go_to_the_lowest_row() -> None:
    evaluation = scored("AABB", [[1, 0], [0, 1], [1, 0], [1, 0]])
    assert evaluation.predictions == [("0", "2"), ("1", "0"), ("2", "0"), ("3", "0")]
    assert evaluation.report.correct == 1


def test_the_class_is_decided_rightly_where_the_nearest_photo_misleads() -> None:
    # On a line (angles in degrees): A at 0, 4, 5, 6 and B at 1, 60, 61.
    angles = np.radians([0, 4, 5, 6, 1, 60, 61])
    report = scored("AAAABBB", np.stack([np.cos(angles), np.sin(angles)], axis=1)).report
    # The photo at 0 has a B as its nearest and the A as a whole nearer; the B at 1 lies among the A for both.
    assert report.top1 == pytest.approx(5 / 7)
    assert report.class_top1 == pytest.approx(6 / 7)
    assert report.class_ci95 is not None
    assert report.class_ci95[0] <= 6 / 7 <= report.class_ci95[1]


def test_the_probability_is_tried_on_classes_that_it_was_not_fitted_on() -> None:
    random = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), 12)
    rows = random.normal(size=(40, 24))[codes] + 1.1 * random.normal(size=(480, 24))
    report = scored([f"class {code}" for code in codes], rows).report
    told = report.confidence
    assert report.class_top1 is not None
    assert report.class_top1 > report.top1  # ten neighbours and the mean know more than one neighbour
    assert told is not None
    assert told.wanted == 0.95
    assert told.error < 0.08
    assert told.auroc is not None
    assert told.auroc > 0.75
    assert told.precision is not None
    assert 0.1 < told.coverage < 1
    assert told.precision > 0.9


def test_copies_are_counted_and_the_score_is_told_without_them() -> None:
    rows = unit([[1, 0, 0], [1, 0, 0], [0, 1, 0.1], [0, 1, 0], [0, 0.9, 0.5]])
    photos = embedded("AABBA", rows)
    photos[1] = Embedded(photos[1].photo, photos[0].sha256, rows[1])
    report = score(photos, [], None, {}).report
    assert (report.top1, report.copies) == (0.8, 2)
    assert report.top1_without_copies == pytest.approx(2 / 3)
    assert scored("AABB", np.eye(4)).report.copies == 0


def test_a_photo_alone_in_its_class_is_wrong_and_listed() -> None:
    report = scored("AAB", [[1, 0], [1, 0.1], [1, 0.3]]).report
    assert (report.correct, report.total, report.unanswerable) == (2, 3, ["2"])


def test_one_class_is_always_right() -> None:
    report = scored("AAA", np.eye(3)).report
    assert (report.top1, report.ci95, report.ci95_photos, report.map_at_r) == (1.0, (1.0, 1.0), (1.0, 1.0), 1.0)


def test_one_photo_a_class_is_never_right() -> None:
    report = scored("ABC", np.eye(3)).report
    assert (report.top1, report.ci95, report.map_at_r) == (0.0, (0.0, 0.0), 0.0)
    assert report.recall_at == {"1": 0.0, "5": 0.0, "10": 0.0}
    assert report.unanswerable == ["0", "1", "2"]
    assert "NaN" not in json.dumps(report.to_json(), allow_nan=False)


def test_the_report_is_strict_json_with_the_keys_of_the_design(fake_embedder: Embedder, tmp_path: Path) -> None:
    photos = write_photos(tmp_path, ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"])
    (photos / "a" / "empty.jpg").touch()
    found = read_items(photos)
    value = json.loads(json.dumps(evaluate(found.items, fake_embedder).report.to_json(), allow_nan=False))
    assert set(value) == REPORT_KEYS
    assert value["top1"] == value["correct"] / value["total"]
    assert set(value["recall_at"]) == {"1", "5", "10"}
    assert [set(one) for one in value["per_class"]] == [{"class", "photos", "correct", "top1"}] * 2
    assert all(set(one) == {"class", "nearest_class", "count"} for one in value["most_confused"])
    for low, high in (value["ci95"], value["ci95_photos"]):
        assert 0 <= low <= value["top1"] <= high <= 1
    assert value["versions"]["embedding_id"] == fake_embedder.embedding_id
    assert value["versions"]["model_sha256"] == fake_embedder.model_sha256
    assert {"model", "runtime", "precision", "python", "numpy", "faiss-cpu"} <= set(value["versions"])


def test_skipped_photos_are_listed_with_their_codes_and_do_not_count(fake_embedder: Embedder) -> None:
    good = [MemoryPhoto(str(shot), "a", car_photo(1, shot)) for shot in range(3)]
    bad = [
        MemoryPhoto("empty", "a"),
        MemoryPhoto("text", "b", b"not a photo"),
        MemoryPhoto("cut", "b", car_photo()[:99]),
    ]
    good.append(MemoryPhoto("other", "b", car_photo(2, 0)))
    before = [Skipped("loose.jpg", "no_class", "The file lies in no class folder.")]
    report = evaluate([*good, *bad], fake_embedder, skipped=before).report
    assert (report.correct, report.total, report.classes) == (3, 4, 2)
    assert [(one.name, one.code) for one in report.skipped] == [
        ("loose.jpg", "no_class"),
        ("empty", "empty_file"),
        ("text", "unsupported_image_format"),
        ("cut", "image_undecodable"),
    ]


@pytest.mark.parametrize("good", [0, 1])
def test_fewer_than_two_usable_photos_have_no_score(fake_embedder: Embedder, good: int) -> None:
    photos = [MemoryPhoto(str(shot), "a", car_photo(1, shot) if shot < good else b"") for shot in range(3)]
    with pytest.raises(EvaluationSetInvalid, match=rf"has {good} usable photos of \d classes \({3 - good} skipped\)"):
        evaluate(photos, fake_embedder)


@pytest.mark.parametrize(("labels", "why"), [("aaa", "at least two classes"), ("abc", "a class with at least two")])
def test_a_set_whose_score_is_fixed_before_any_search_is_refused(
    fake_embedder: Embedder, labels: str, why: str
) -> None:
    photos = [MemoryPhoto(str(shot), label, car_photo(1, shot)) for shot, label in enumerate(labels)]
    with pytest.raises(EvaluationSetInvalid, match=why):
        evaluate(photos, fake_embedder)


def test_an_empty_set_has_no_score(fake_embedder: Embedder) -> None:
    with pytest.raises(EvaluationSetInvalid):
        evaluate([], fake_embedder)


def test_ids_that_stand_twice_are_refused(fake_embedder: Embedder) -> None:
    photos: list[Photo] = [MemoryPhoto("same", "a", car_photo()), MemoryPhoto("same", "b", car_photo())]
    with pytest.raises(DuplicateId):
        evaluate(photos, fake_embedder)


def test_progress_that_raises_stops_the_work(fake_embedder: Embedder) -> None:
    photos = [MemoryPhoto(str(shot), "a", car_photo(1, shot, (32, 32))) for shot in range(3 * fake_embedder.batch)]
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 2:
            raise EvaluationCancelled

    with pytest.raises(EvaluationCancelled):
        evaluate(photos, fake_embedder, progress=stop)
    assert told == [(fake_embedder.batch, 3 * fake_embedder.batch), (2 * fake_embedder.batch, 3 * fake_embedder.batch)]
