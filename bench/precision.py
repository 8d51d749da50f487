"""Int8 against fp32 on the same photos (`python -m bench precision`).

Top-1 of each and their difference in points, with its interval over classes and over photos. The difference is paired:
only photos that exactly one of the two has right count.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from indexer.benchmark.evaluate import evaluate
from model.card import FP32, INT8
from model.dataset import read_labelled
from model.embedder import Embedder, Progress
from model.retrieval import (
    RESAMPLES,
    Interval,
    bootstrap_over_classes,
    bootstrap_over_photos,
    percentile_interval,
)
from model.types import Rows
from service.cli.output import progress_bar

Correct = npt.NDArray[np.bool_]
ALL = "all of them"


@dataclass(frozen=True, slots=True)
class Share:
    """Leave-one-out top-1 with its intervals."""

    top1: float
    ci95: Interval
    ci95_photos: Interval


@dataclass(frozen=True, slots=True)
class Paired:
    """Two precisions on one set; `difference` is `int8.top1 - fp32.top1`, a share like its intervals.

    `gained` counts photos that only int8 has right, `lost` those that only fp32 has right.
    """

    set: str
    photos: int
    classes: int
    fp32: Share
    int8: Share
    difference: float
    ci95: Interval
    ci95_photos: Interval
    gained: int
    lost: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The precisions of one model on each set and, with several sets, on all their photos together."""

    model: str
    versions: dict[str, dict[str, str]]
    sets: list[Paired]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Answers:
    """The photos of a set that each precision has right: bool (n,), and their classes: int64 (n,)."""

    fp32: Correct
    int8: Correct
    classes: Rows


def compare(
    model: str | Path | None,
    data: Sequence[Path],
    bar: Callable[[str], AbstractContextManager[Progress]] = progress_bar,
) -> Comparison:
    """Runs the benchmark on each set in int8 and in fp32; fp32 runs in torch when the model has no such graph.

    Raises PrecisionMissing when there is no int8 graph, and what `evaluate` raises.
    """
    int8 = Embedder.load(model, "openvino", INT8)
    fp32 = Embedder.load(model, "openvino" if FP32 in int8.card.precisions else "torch", FP32)
    versions: dict[str, dict[str, str]] = {}
    answers: dict[str, _Answers] = {}
    for source in data:
        found = read_labelled(source)
        labels = {item.id: item.label for item in found.items}
        correct: dict[str, Correct] = {}
        queries: list[str] = []
        for precision, embedder in ((INT8, int8), (FP32, fp32)):
            with bar(f"{source.name} in {precision}") as progress:
                evaluation = evaluate(found.items, embedder, skipped=found.skipped, progress=progress)
            pairs = evaluation.predictions
            correct[precision] = np.array([labels[query] == labels[nearest] for query, nearest in pairs])
            queries = [query for query, _ in pairs]
            versions[precision] = evaluation.report.versions
        classes = np.unique([labels[query] for query in queries], return_inverse=True)[1]
        answers[str(source)] = _Answers(correct[FP32], correct[INT8], classes)
    if len(answers) > 1:
        answers[ALL] = _pooled(list(answers.values()))
    return Comparison(int8.card.name, versions, [_paired(name, one) for name, one in answers.items()])


def _pooled(answers: Sequence[_Answers]) -> _Answers:
    """Several sets as one; equal class numbers of two sets become different ones."""
    firsts = np.cumsum([0, *(one.classes.max() + 1 for one in answers[:-1])])
    return _Answers(
        fp32=np.concatenate([one.fp32 for one in answers]),
        int8=np.concatenate([one.int8 for one in answers]),
        classes=np.concatenate([one.classes + first for one, first in zip(answers, firsts, strict=True)]),
    )


def _paired(name: str, answers: _Answers) -> Paired:
    before, after, classes = answers.fp32, answers.int8, answers.classes
    return Paired(
        set=name,
        photos=len(before),
        classes=int(classes.max()) + 1,
        fp32=_share(before, classes),
        int8=_share(after, classes),
        difference=float(after.mean() - before.mean()),
        ci95=bootstrap_over_classes(after.astype(np.float64) - before, classes),
        ci95_photos=paired_over_photos(before, after),
        gained=int((after & ~before).sum()),
        lost=int((before & ~after).sum()),
    )


def paired_over_photos(before: Correct, after: Correct, seed: int = 0) -> Interval:
    """Percentile interval of mean(after) - mean(before) over resampled photos; before, after bool (n,).

    It is much narrower than that of either mean, because photos that are right or wrong in both do not count.
    """
    count = len(before)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    shares = [gained / count, lost / count, (count - gained - lost) / count]
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=RESAMPLES)
    return percentile_interval((drawn[:, 0] - drawn[:, 1]) / count)


def _share(correct: Correct, classes: Rows) -> Share:
    return Share(float(correct.mean()), bootstrap_over_classes(correct, classes), bootstrap_over_photos(correct))


def table_of(comparison: Comparison) -> Table:
    """Top-1 of both precisions and their difference in points with its 95% intervals."""
    table = Table("set", "photos", "fp32", "int8", "points", "over classes", "over photos", title=comparison.model)
    for one in comparison.sets:
        table.add_row(
            Text(one.set, overflow="fold"),
            f"{one.photos}",
            f"{one.fp32.top1:.4f}",
            f"{one.int8.top1:.4f}",
            f"{100 * one.difference:+.2f}",
            _points(one.ci95),
            _points(one.ci95_photos),
        )
    return table


def _points(interval: Interval) -> str:
    return f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"
