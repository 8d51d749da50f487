"""What a report says: each section's figures, and its photos with their pictures."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from indexer.benchmark.compare import Comparison, Flip
from indexer.benchmark.health import (
    FEW_PHOTOS,
    SUSPECT_SHARE,
    NearCopy,
    Suspect,
    near_copies,
    near_copy_cosine,
    small_classes,
    suspects,
)
from indexer.benchmark.projection import project
from indexer.benchmark.report import Answer, ClassScore, Confusion, Details, Evaluation, Report
from indexer.calibration import Reliability, reliability
from model.card import Score
from model.dataset import spread
from model.retrieval import recall_at
from service.report import plots
from service.report.pictures import Matched, Pictures

PUBLISHED = {"classes": 78, "photos": 11_046, "correct": 9_333}
"""The score that the original project published, on photos of its own."""

ALL_CLASSES = 30
"""Up to this number all classes are shown; of more, the lowest and highest are shown and the others are folded."""
WORST_CLASSES, BEST_CLASSES, FOLDED_CLASSES = 15, 5, 1_000
CONFUSIONS, EXAMPLES = 8, 3
ERRORS = 12
"""Of each kind. Two dozen heat maps take a few seconds."""
NEAR_COPIES = COPIES = SUSPECTS = FLIPS = 12
SUSPECT_NEIGHBOURS = 3
MAP_CLASSES = 8
RECALL_UP_TO = 20
LIMITS = {"listed": 100, "few_photos": FEW_PHOTOS, "suspect_share": SUSPECT_SHARE}
"""What the page says of its lists; `listed` are the ids and names in lists without pictures."""


class BenchmarkRow(NamedTuple):
    """A score beside others: of `photos` photos of `classes` classes a share, with its interval where it is known."""

    name: str
    classes: int
    photos: int
    share: float
    interval: Sequence[float] | None


def beside_the_benchmark(report: Report, scores: Iterable[Score]) -> list[BenchmarkRow]:
    """This score, those that the model's card has for the precision that ran, and the published one."""
    this = BenchmarkRow("This evaluation", report.classes, report.total, report.top1, report.ci95)
    known = [
        BenchmarkRow(f"This model on {score.set}", score.classes, score.total, score.top1, score.ci95)
        for score in scores
        if score.precision == report.versions["precision"]
    ]
    share = PUBLISHED["correct"] / PUBLISHED["photos"]
    published = "The original project's model on its own photos"
    return [this, *known, BenchmarkRow(published, PUBLISHED["classes"], PUBLISHED["photos"], share, None)]


class Classes(NamedTuple):
    """Classes by their share of right answers, lowest first: the lowest, those that are folded, the highest."""

    worst: list[ClassScore]
    folded: list[ClassScore]
    best: list[ClassScore]
    left_out: int


def classes(report: Report) -> Classes:
    """All classes where they are few."""
    ordered = sorted(report.per_class, key=lambda score: (score.top1, -score.photos, score.label))
    if len(ordered) <= ALL_CLASSES:
        return Classes(ordered, [], [], 0)
    between = ordered[WORST_CLASSES:-BEST_CLASSES]
    left_out = max(0, len(between) - FOLDED_CLASSES)
    return Classes(ordered[:WORST_CLASSES], between[:FOLDED_CLASSES], ordered[-BEST_CLASSES:], left_out)


class Pair(NamedTuple):
    """A query and a photo that it found."""

    answer: Answer
    found: str
    found_label: str
    score: float


class Example(NamedTuple):
    """A pair with pictures of both photos."""

    answer: Answer
    found: str
    found_label: str
    score: float
    pictures: Matched


def confusions(report: Report, answers: Sequence[Answer], pictures: Pictures) -> list[tuple[Confusion, list[Example]]]:
    """The most frequent confusions, each with the photos that were most alike."""
    wrong: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in _wrong_pairs(answers):
        wrong[pair.answer.label, pair.found_label].append(pair)

    def examples(one: Confusion) -> list[Example]:
        first = wrong[one.label, one.nearest_label][:EXAMPLES]
        return [Example(*pair, pictures.matched(pair.answer.id, pair.found)) for pair in first]

    return [(one, examples(one)) for one in report.most_confused[:CONFUSIONS]]


class Errors(NamedTuple):
    """The worst errors, explained by heat maps: by the probability that was told, and by how alike the photos are."""

    confident: list[Example]
    alike: list[Example]


def errors(answers: Sequence[Answer], details: Details, pictures: Pictures) -> Errors:
    """Wrong classes beside the nearest photo of the class that was named, and wrong nearest photos.

    No two photos are shown together twice, though each may have found the other.
    """
    shown: set[frozenset[str]] = set()

    def explained(pairs: Iterable[Pair]) -> list[Example]:
        found: list[Example] = []
        for pair in pairs:
            both = frozenset((pair.answer.id, pair.found))
            if both not in shown and len(found) < ERRORS:
                shown.add(both)
                found.append(Example(*pair, pictures.explained(pair.answer.id, pair.found)))
        return found

    return Errors(explained(_wrongly_named(answers, details)), explained(_wrong_pairs(answers)))


def _wrong_pairs(answers: Iterable[Answer]) -> list[Pair]:
    """Queries with their nearest photos of other classes, the most alike first."""
    wrong = sorted((one for one in answers if not one.right), key=lambda answer: (-answer.score, answer.id))
    return [Pair(answer, answer.nearest, answer.nearest_label, answer.score) for answer in wrong]


def _wrongly_named(answers: Sequence[Answer], details: Details) -> Iterator[Pair]:
    """Queries whose class was decided wrongly with the nearest photos of that class, the most probable first."""
    wrong = [
        (-answer.probability, place)
        for place, answer in enumerate(answers)
        if answer.probability is not None and not answer.class_right
    ]
    for _, place in sorted(wrong):
        answer = answers[place]
        near = next(at for at, row in enumerate(details.near[place]) if details.labels[row] == answer.decided)
        row, score = details.near[place, near], min(float(details.scores[place, near]), 1.0)
        yield Pair(answer, details.ids[row], details.labels[row], score)


@dataclass(frozen=True, slots=True)
class Trust:
    """Recall at rising k, and how far probabilities hold; plots are None where there is too little to draw.

    `threshold` is the lowest probability from which decisions are right as often as `wanted`.
    """

    recall: list[tuple[int, float]]
    recall_plot: Markup | None
    wanted: float | None = None
    threshold: float | None = None
    found: Reliability | None = None
    reliability_plot: Markup | None = None
    coverage_plot: Markup | None = None


def trust(evaluation: Evaluation, details: Details) -> Trust:
    """The recall curve and, where there are probabilities, their reliability and precision against coverage."""
    ranks = range(1, min(details.depth, RECALL_UP_TO) + 1)
    recall = [(k, recall_at(details.first_rank, k)) for k in ranks]
    recall_plot = plots.recall_curve(recall) if len(recall) > 1 else None
    hopeless = set(evaluation.report.unanswerable)
    asked = [answer for answer in evaluation.answers if answer.id not in hopeless and answer.probability is not None]
    told = evaluation.report.confidence
    if told is None or not asked:
        return Trust(recall, recall_plot)
    probabilities = np.array([answer.probability for answer in asked], np.float64)
    right = np.array([answer.class_right for answer in asked])
    found = reliability(probabilities, right)
    threshold = next(point.threshold for point in found.curve if point.precision == told.wanted)
    return Trust(
        recall, recall_plot, told.wanted, threshold, found,
        plots.reliability_diagram(found), plots.precision_against_coverage(probabilities, right, threshold),
    )  # fmt: skip


class Map(NamedTuple):
    """The embedding map: classes that have colours, by number; `photos` are on it."""

    plot: Markup
    classes: list[str]
    method: str
    photos: int


def embedding_map(report: Report, details: Details, before_step: Callable[[], None]) -> Map:
    """The photos of the set on a plane, those of the classes that are confused most in colour."""
    confused = [label for pair in report.most_confused for label in (pair.label, pair.nearest_label)]
    largest = [score.label for score in sorted(report.per_class, key=lambda score: -score.photos)]
    own = {score.label for score in report.per_class}
    shown = [label for label in dict.fromkeys([*confused, *largest]) if label in own][:MAP_CLASSES]
    made = project(details.embeddings, before_step)
    labels = np.array([details.photos[row].label for row in made.rows])
    groups = [~np.isin(labels, shown), *(labels == label for label in shown)]
    return Map(plots.embedding_map(made.points, groups), shown, made.method, len(made.rows))


@dataclass(frozen=True, slots=True)
class Health:
    """What may be wrong with the photos themselves; lists with pictures are cut, numbers are of all."""

    copies: list[tuple[list[str], str | None]]
    copy_groups: int
    near_copy_cosine: float
    near_copies: list[tuple[NearCopy, Matched]]
    near_copy_count: int
    small_classes: list[tuple[str, int]]
    suspects: list[tuple[Suspect, list[str | None]]]
    suspect_count: int


def health(evaluation: Evaluation, details: Details, pictures: Pictures) -> Health:
    """Copies, near copies, classes with few photos, and photos that look like another class."""
    cosine, doubtful = near_copy_cosine(details.scores[:, 0]), suspects(details)
    pairs = near_copies(details, cosine)
    return Health(
        copies=[(group, pictures.query(group[0])) for group in evaluation.copies[:COPIES]],
        copy_groups=len(evaluation.copies),
        near_copy_cosine=cosine,
        near_copies=[(pair, pictures.matched(pair.id, pair.other)) for pair in pairs[:NEAR_COPIES]],
        near_copy_count=len(pairs),
        small_classes=small_classes(details.labels),
        suspects=[
            (one, [pictures.query(one.id), *map(pictures.found, one.neighbours[:SUSPECT_NEIGHBOURS])])
            for one in doubtful[:SUSPECTS]
        ],
        suspect_count=len(doubtful),
    )


class FlipShown(NamedTuple):
    """A photo whose answer became right or wrong, what it found before, and what it finds now."""

    flip: Flip
    query: str | None
    before: str | None
    now: str | None


class ChangeShown(NamedTuple):
    """A comparison, and some of the photos that became right and wrong."""

    comparison: Comparison
    gained: list[FlipShown]
    lost: list[FlipShown]


def change(comparison: Comparison, details: Details, pictures: Pictures) -> ChangeShown:
    """What changed; the photo that was found before has a picture where it is still searched."""
    there = set(details.ids)

    def shown(flip: Flip) -> FlipShown:
        before = pictures.found(flip.before.nearest) if flip.before.nearest in there else None
        return FlipShown(flip, pictures.query(flip.now.id), before, pictures.found(flip.now.nearest))

    gained, lost = ([shown(flip) for flip in spread(flips, FLIPS)] for flips in (comparison.gained, comparison.lost))
    return ChangeShown(comparison, gained, lost)
