"""The evaluation report: the result of the benchmark, as values that become JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from model.dataset import Skipped


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
            value[name] = [{key.replace("label", "class"): told for key, told in one.items()} for one in value[name]]
        return value


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report and the predictions behind it: (query id, nearest id) in the order of the set.

    `copies` are the ids of photos of the set with the same content, in groups of two and more.
    """

    report: Report
    predictions: list[tuple[str, str]]
    copies: list[list[str]]

    def predictions_text(self) -> str:
        """The submission format of the original project: a pair of ids a line, the query and its nearest photo.

        A tab is between them, as ids may hold blanks.
        """
        return "".join(f"{query}\t{nearest}\n" for query, nearest in self.predictions)

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
