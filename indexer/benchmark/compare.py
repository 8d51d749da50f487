"""Two evaluations of the same photos, paired photo by photo: what changed, and whether that can be chance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.benchmark.report import Answer, Evaluation
from model.errors import DataInvalid
from model.retrieval import Interval, bootstrap_over_classes
from model.storage import read_json


@dataclass(frozen=True, slots=True)
class Flip:
    """A photo that one of two evaluations has right and the other wrong, with its answer in both."""

    before: Answer
    now: Answer


@dataclass(frozen=True, slots=True)
class Change:
    """A share of right answers before and now, on the same photos; `ci95` of the difference is over classes.

    `gained` counts photos that only the later evaluation has right, `lost` those that only the earlier one has.
    `p_value` is that of McNemar's exact test, which looks at these alone.
    """

    before: float
    now: float
    ci95: Interval
    gained: int
    lost: int
    p_value: float

    @property
    def difference(self) -> float:
        """The later share less the earlier one."""
        return self.now - self.before

    def to_json(self) -> dict[str, Any]:
        return {"difference": self.difference, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """An evaluation beside an earlier one.

    `photos` are in both, by their ids; `only_before` and `only_now` count the others. `top1` is of nearest photos,
    `decided` of classes, None where one of the two has none. `versions` are those that differ, before and now.
    `gained` and `lost` are the photos whose nearest photo became right or wrong.
    """

    name: str
    photos: int
    only_before: int
    only_now: int
    top1: Change
    decided: Change | None
    versions: dict[str, tuple[str, str]]
    gained: list[Flip]
    lost: list[Flip]

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON, with the ids of the photos that became right and wrong."""
        changes = {"top1": self.top1.to_json(), "class": self.decided and self.decided.to_json()}
        flips = {name: [flip.now.id for flip in getattr(self, name)] for name in ("gained", "lost")}
        counts = {name: getattr(self, name) for name in ("name", "photos", "only_before", "only_now", "versions")}
        return {**counts, **changes, **flips}


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an evaluation of before says: the name of its file, its versions and mode, and its answers."""

    name: str
    versions: dict[str, str]
    answers: list[Answer]


def read_earlier(path: Path) -> Earlier:
    """Reads a file of `carsearch evaluate --report`; raises DataInvalid for any other."""
    value = read_json(path, DataInvalid)
    if "top1" in value and "answers" not in value:
        raise DataInvalid(f"{path} is of a release that did not write the answer to each photo; evaluate again.")
    try:
        answers = [_answer(one) for one in value["answers"]]
        return Earlier(path.name, {"mode": value["mode"], **value["versions"]}, answers)
    except (AttributeError, KeyError, TypeError) as problem:
        raise DataInvalid(f"{path} is no report that carsearch evaluate --report wrote.") from problem


def _answer(value: dict[str, Any]) -> Answer:
    return Answer(**{key.replace("class", "label"): told for key, told in value.items()})


def compare(evaluation: Evaluation, earlier: Earlier) -> Comparison:
    """Pairs two evaluations by the ids of their photos; raises DataInvalid when they have none in common."""
    before = {answer.id: answer for answer in earlier.answers}
    pairs = [(before[now.id], now) for now in evaluation.answers if now.id in before]
    if not pairs:
        raise DataInvalid(f"No photo of this set is in {earlier.name}: evaluations are compared photo by photo, by id.")
    versions = {"mode": evaluation.report.mode, **evaluation.report.versions}
    both = {name: (earlier.versions.get(name, ""), versions.get(name, "")) for name in {**earlier.versions, **versions}}
    decided = all(old.decided is not None for old, _ in pairs) and evaluation.report.class_top1 is not None
    labels = [now.label for _, now in pairs]
    return Comparison(
        name=earlier.name,
        photos=len(pairs),
        only_before=len(before) - len(pairs),
        only_now=len(evaluation.answers) - len(pairs),
        top1=change([old.right for old, _ in pairs], [now.right for _, now in pairs], labels),
        decided=change([old.class_right for old, _ in pairs], [now.class_right for _, now in pairs], labels)
        if decided
        else None,
        versions={name: (old, new) for name, (old, new) in both.items() if old != new},
        gained=[Flip(old, now) for old, now in pairs if now.right and not old.right],
        lost=[Flip(old, now) for old, now in pairs if old.right and not now.right],
    )


def change(before: Sequence[bool], now: Sequence[bool], labels: Sequence[str]) -> Change:
    """What changed in n right or wrong answers of photos of some classes."""
    earlier, later = np.array(before), np.array(now)
    codes = np.unique(np.array(labels), return_inverse=True)[1]
    gained, lost = int((later & ~earlier).sum()), int((earlier & ~later).sum())
    return Change(
        before=float(earlier.mean()),
        now=float(later.mean()),
        ci95=bootstrap_over_classes(later.astype(np.float64) - earlier, codes),
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
    )


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact test: how probable so uneven a split of the changed photos is where both ways are as likely.

    >>> mcnemar(1, 4)
    0.375
    """
    changed = gained + lost
    ways, fewer = 1, 0
    for count in range(min(gained, lost) + 1):
        fewer += ways
        ways = ways * (changed - count) // (count + 1)
    return min(1.0, 2 * fewer / (1 << changed))
