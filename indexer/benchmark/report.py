"""The evaluation report: the result of the benchmark, as values that become JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model.dataset import Photo, Skipped
from model.types import Embeddings, Rows


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Top-1 of the queries of one class."""

    label: str
    photos: int
    correct: int
    top1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many queries of one class had their nearest neighbour in another."""

    label: str
    nearest_label: str
    count: int


@dataclass(frozen=True, slots=True)
class Confidence:
    """How far the probability of a decision can be trusted, on the queries whose class could be found.

    With `wanted` as the precision, a share `coverage` of the queries is decided, and `precision` of these rightly (None
    where none is). `error` is the expected calibration error, `auroc` that of right against wrong decisions. For
    leave-one-out the probability is fitted on the queries of half of the classes and tried on the others, and the other
    way round.
    """

    wanted: float
    coverage: float
    precision: float | None
    error: float
    auroc: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The benchmark on one labelled set; all scores are shares of `total`, the usable photos.

    `top1` = `correct` / `total`. `ci95` is the 95% bootstrap interval over classes, `ci95_photos` over photos.
    `class_top1` is the share of queries whose class is decided rightly, as `/search` decides it, with `class_ci95` over
    classes; these and `confidence` are None against an index from before there were decisions. `copies` counts
    queries of which the set (leave-one-out) or the gallery holds the same file; `top1_without_copies` is of the others.
    `unanswerable` lists the ids of photos without another one of their class; they count as wrong.
    `identical_in_gallery` counts queries whose file is in the gallery (mode "gallery" only).
    """

    mode: str
    top1: float
    correct: int
    total: int
    ci95: tuple[float, float]
    ci95_photos: tuple[float, float]
    class_top1: float | None
    class_ci95: tuple[float, float] | None
    confidence: Confidence | None
    copies: int
    top1_without_copies: float | None
    recall_at: dict[str, float]
    map_at_r: float
    classes: int
    per_class: list[ClassScore]
    most_confused: list[Confusion]
    unanswerable: list[str]
    skipped: list[Skipped]
    identical_in_gallery: int | None
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The report as written to a file and sent over HTTP, where a label is called "class"."""
        value = asdict(self)
        for name in ("per_class", "most_confused"):
            value[name] = [_with_classes(one) for one in value[name]]
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """What one query found: its nearest photo, with the cosine, and the class that was decided.

    `decided` is None where no photo near by has a class, and against an index from before there were decisions;
    `probability` is then None too, and where the probability could not be tried.
    """

    id: str
    label: str
    nearest: str
    nearest_label: str
    score: float
    decided: str | None
    probability: float | None

    @property
    def right(self) -> bool:
        """True where the nearest photo has the class of the query."""
        return self.nearest_label == self.label

    @property
    def class_right(self) -> bool:
        """True where the decision names the class of the query."""
        return self.decided == self.label


@dataclass(frozen=True, slots=True)
class Details:
    """What a report with pictures is made of: n queries in the order of the answers, and the N photos searched.

    `photos` are the queries, `embeddings` float32 (n, D) theirs and `hashes` their sha256. `near` int64 (n, K) are the
    rows of each query's nearest photos that have a class, best first, at most ten and -1 where there are no more, with
    the cosines `scores` float32 (n, K). `first_rank` int64 (n,) is the rank of the first one of the query's class among
    `depth` photos, 0 where there is none. `ids`, `labels` and `found_hashes` are those of the N photos searched, which
    leave-one-out takes from the queries.
    """

    photos: Sequence[Photo]
    embeddings: Embeddings
    hashes: Sequence[str]
    near: Rows
    scores: Embeddings
    first_rank: Rows
    depth: int
    ids: Sequence[str]
    labels: Sequence[str]
    found_hashes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report and the answers behind it, in the order of the set.

    `copies` are the ids of photos of the set with the same content, in groups of two and more. `details` are there
    where `evaluate` was asked for them.
    """

    report: Report
    answers: list[Answer]
    copies: list[list[str]]
    details: Details | None = None

    @property
    def predictions(self) -> list[tuple[str, str]]:
        """Pairs of ids: a query and its nearest photo."""
        return [(answer.id, answer.nearest) for answer in self.answers]

    def predictions_text(self) -> str:
        """The submission format of the original project: a pair of ids a line, the query and its nearest photo.

        A tab is between them, as ids may hold blanks.
        """
        return "".join(f"{query}\t{nearest}\n" for query, nearest in self.predictions)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON with the answer to each photo, which a later evaluation can be compared with."""
        return {**self.report.to_json(), "answers": [_with_classes(asdict(one)) for one in self.answers]}

    def _repr_html_(self) -> str:
        """The scores with their intervals over classes, for a notebook."""
        one = self.report
        scores = {"top-1": (one.top1, one.ci95), "class": (one.class_top1, one.class_ci95)}
        rows = "".join(
            f"<tr><th>{name}</th><td>{score:.4f}</td><td>{interval[0]:.4f} .. {interval[1]:.4f}</td></tr>"
            for name, (score, interval) in scores.items()
            if score is not None and interval is not None
        )
        return f"<table><tr><th></th><th>{one.total} photos</th><th>95% over classes</th></tr>{rows}</table>"


def _with_classes(value: dict[str, Any]) -> dict[str, Any]:
    """A label is called "class" in JSON."""
    return {key.replace("label", "class"): told for key, told in value.items()}
