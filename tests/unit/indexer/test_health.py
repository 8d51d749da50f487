"""Near copies, photos with doubtful classes and small classes, worked by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from indexer.benchmark.evaluate import score
from indexer.benchmark.health import near_copies, near_copy_cosine, small_classes, suspects
from indexer.benchmark.report import Details
from indexer.embed import Embedded
from tests.unit.indexer.sets import MemoryPhoto, unit


def details_of(labels: Sequence[str], angles: Sequence[float], contents: Sequence[str] | None = None) -> Details:
    """Photos "0", "1", ... on a circle, at angles in degrees; their sha256 are by default all different."""
    radians = np.radians(angles)
    rows = unit(np.stack([np.cos(radians), np.sin(radians)], axis=1))
    hashes = contents or [str(row) for row in range(len(labels))]
    photos = [Embedded(MemoryPhoto(str(row), label), hashes[row], rows[row]) for row, label in enumerate(labels)]
    details = score(photos, [], None, {}, details=True).details
    assert details is not None
    return details


def test_near_copies_are_told_once_the_most_alike_first_and_copies_of_a_file_are_none() -> None:
    # cos 10 = 0.985, cos 20 = 0.940; the photos at 90 and 91 are one file.
    details = details_of("ABAAAB", [0, 10, 30, 90, 91, 180], ["a", "b", "c", "d", "d", "e"])
    found = near_copies(details, 0.93)
    assert [(pair.id, pair.other, pair.label, pair.other_label) for pair in found] == [
        ("0", "1", "A", "B"),
        ("1", "2", "B", "A"),
    ]
    assert [pair.cosine for pair in found] == pytest.approx([0.985, 0.940], abs=1e-3)
    assert [(pair.id, pair.other) for pair in near_copies(details, 0.98)] == [("0", "1")]


def test_near_copies_are_more_alike_than_nearly_all_photos_of_the_set() -> None:
    far = details_of("AABB", [0, 60, 120, 180])
    assert near_copy_cosine(far.scores[:, 0]) == 0.82
    alike = details_of("AABB", [0, 20, 40, 60])
    assert near_copy_cosine(alike.scores[:, 0]) == pytest.approx(0.940, abs=1e-3)
    nearly_equal = details_of("AABB", [0, 1, 2, 3])
    assert near_copy_cosine(nearly_equal.scores[:, 0]) == 0.97


def test_a_photo_among_those_of_another_class_may_have_the_wrong_label() -> None:
    # Ten B and one A among them; the other A are far away.
    labels = "B" * 10 + "A" + "A" * 11
    found = suspects(details_of(labels, [*range(0, 20, 2), 9, *range(150, 172, 2)]))
    assert [(one.id, one.label, one.looks_like, one.count, one.of) for one in found] == [("10", "A", "B", 10, 10)]
    assert found[0].neighbours[:2] == ("4", "5")  # at 8 and 10 degrees, both one away


def test_as_many_photos_are_looked_at_as_the_other_class_has() -> None:
    # The four nearest of the A at 2 are the four B. The A at 60 has the other A among its first four.
    found = suspects(details_of("BBBBAA", [0, 1, 3, 4, 2, 60]))
    assert [(one.id, one.count, one.of) for one in found] == [("4", 4, 4)]
    assert suspects(details_of("BBBAA", [0, 1, 3, 2, 60])) == []  # three photos say too little


def test_a_photo_with_others_of_its_class_near_by_is_in_no_doubt() -> None:
    assert suspects(details_of("BBBBBAAA", [0, 1, 3, 4, 5, 2, 6, 7])) == []


def test_small_classes_come_first_where_they_are_smallest() -> None:
    labels = ["C"] * 2 + ["A"] * 2 + ["B"] + [""] + ["D"] * 5
    assert small_classes(labels) == [("B", 1), ("A", 2), ("C", 2)]
    assert small_classes(labels, fewer_than=2) == [("B", 1)]
