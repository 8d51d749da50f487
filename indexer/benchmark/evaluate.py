"""The benchmark: leave-one-out on a labelled set, or the set's photos against a gallery.

Every photo is a query once. Its nearest neighbour is the photo with the highest cosine among all the others, the lowest
row among equals. The query's own row is left out by number, so that a duplicate counts as a neighbour. The answer is
correct when both are of one class. Photos of a gallery that have no class are no answers and are not searched; a class
is decided as `/search` decides it, among all.
"""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.benchmark.report import ClassScore, Confidence, Confusion, Evaluation, Report
from indexer.calibration import PHOTOS_OF_CLASS, auroc, calibration_error, fit
from indexer.class_weights import ClassFit, ClassWeights, Values
from indexer.decider import Decider
from indexer.decision import NEIGHBOURS, Decisions, decide
from indexer.embed import Embedded, Lookup, copies_among, embed_photos, nothing_known
from indexer.items import ItemTable
from indexer.stores.base import VectorStore
from indexer.stores.faiss import FaissStore
from model.dataset import Photo, Skipped, read_labelled, refuse_duplicate_ids
from model.embedder import Embedder, Progress, silent
from model.errors import EvaluationSetInvalid
from model.retrieval import (
    average_precision_at_r,
    bootstrap_over_classes,
    bootstrap_over_photos,
    first_relevant_rank,
    most_confused,
    recall_at,
)
from model.types import Embeddings, Rows

RECALL_AT = (1, 5, 10)
QUERIES_PER_CALL = 256
WANTED_PRECISION = 0.95
"""Of decisions, for the figures of their coverage."""


@dataclass(frozen=True, slots=True)
class Served:
    """A gallery to evaluate against, the id of its index version, and what it decides with, where it has that."""

    store: VectorStore
    items: ItemTable
    version: str
    decider: Decider | None = None


def evaluate(
    photos: Sequence[Photo] | str | Path,
    embedder: Embedder,
    *,
    gallery: Served | None = None,
    skipped: Iterable[Skipped] = (),
    known: Lookup = nothing_known,
    class_depth: int | None = None,
    exclude: Sequence[str] = (),
    progress: Progress = silent,
) -> Evaluation:
    """Runs the benchmark: leave-one-out, or against `gallery` when one is given.

    `photos` may be the path of a labelled set, which `model.dataset.read_labelled` reads with `class_depth` and
    `exclude`. `skipped` are entries that its reader could not use; they are reported with those found here. `known`
    looks up embeddings of this embedder, so that those of an index are not computed again. `progress` is called with
    (done, total) and may raise to stop. Raises EvaluationSetInvalid when no score is defined.
    """
    if isinstance(photos, str | Path):
        found = read_labelled(Path(photos), class_depth=class_depth, exclude=exclude)
        photos, skipped = found.items, [*found.skipped, *skipped]
    refuse_duplicate_ids(photos)
    embedded: list[Embedded] = []
    unusable = list(skipped)
    done = 0
    for batch in embed_photos(photos, embedder, known):
        embedded += batch.embedded
        unusable += batch.skipped
        done += batch.photos
        progress(done, len(photos))
    _refuse_undefined(embedded, len(unusable), gallery)
    return score(embedded, unusable, gallery, _versions(embedder, gallery), lambda: progress(len(photos), len(photos)))


def score(
    embedded: Sequence[Embedded],
    skipped: list[Skipped],
    gallery: Served | None,
    versions: dict[str, str],
    before_chunk: Callable[[], None] = lambda: None,
) -> Evaluation:
    """The benchmark on embedded photos; see `evaluate`. `before_chunk` is called before each chunk and may raise."""
    labels = [one.photo.label for one in embedded]
    queries = np.stack([one.embedding for one in embedded])
    if gallery is None:
        store: VectorStore = FaissStore.create(queries)
        ids, found_labels, identical = [one.photo.id for one in embedded], labels, None
        files = Counter(one.sha256 for one in embedded)
    else:
        store, rows = gallery.store, gallery.items.all()
        ids, found_labels = [row.id for row in rows], [row.label for row in rows]
        files = Counter(row.sha256 for row in rows)
        identical = sum(one.sha256 in files for one in embedded)
    names, both = np.unique(np.array([*labels, *found_labels]), return_inverse=True)
    codes, row_codes = np.split(both, [len(labels)])
    relevant_count = np.bincount(row_codes, minlength=len(names))[codes] - (gallery is None)
    copied = np.array([files[one.sha256] > (gallery is None) for one in embedded])
    scorer = _scorer(queries, codes, gallery, names)
    of_rows = np.where(np.array(found_labels) == "", -1, row_codes)
    nearest, first_rank, precision, decisions = _search(
        queries, codes, relevant_count, store, of_rows, gallery, scorer, before_chunk
    )
    found = [str(names[code]) for code in row_codes[nearest]]
    correct = row_codes[nearest] == codes
    right = None if decisions is None else decisions.classes == codes
    by_class = np.unique(codes, return_inverse=True)[1]
    report = Report(
        mode="leave-one-out" if gallery is None else "gallery",
        top1=float(correct.mean()),
        correct=int(correct.sum()),
        total=len(correct),
        ci95=bootstrap_over_classes(correct, by_class),
        ci95_photos=bootstrap_over_photos(correct),
        class_top1=None if right is None else float(right.mean()),
        class_ci95=None if right is None else bootstrap_over_classes(right, by_class),
        confidence=None if decisions is None else _confidence(decisions, codes, relevant_count > 0, gallery),
        copies=int(copied.sum()),
        top1_without_copies=None if copied.all() else float(correct[~copied].mean()),
        recall_at={str(k): recall_at(first_rank, k) for k in RECALL_AT},
        map_at_r=float(precision.mean()),
        classes=len(set(labels)),
        per_class=_per_class(labels, correct),
        most_confused=[Confusion(*pair) for pair in most_confused(labels, found)],
        unanswerable=[one.photo.id for one, count in zip(embedded, relevant_count, strict=True) if count == 0],
        skipped=skipped,
        identical_in_gallery=identical,
        versions=versions,
    )
    pairs = zip((one.photo.id for one in embedded), (ids[row] for row in nearest), strict=True)
    return Evaluation(report, list(pairs), copies_among(embedded))


def _refuse_undefined(embedded: Sequence[Embedded], skipped: int, gallery: Served | None) -> None:
    """Refuses sets whose score is known before any search: 1 with one class, 0 where no answer can be correct."""
    photos_of = Counter(one.photo.label for one in embedded)
    usable = f"The set has {len(embedded)} usable photos of {len(photos_of)} classes ({skipped} skipped)"
    if gallery is not None:
        if not photos_of.keys() & gallery.items.classes().keys():
            raise EvaluationSetInvalid(f"{usable}, and none of its classes is in the gallery.")
    elif len(photos_of) < 2:
        raise EvaluationSetInvalid(f"{usable}; leave-one-out needs at least two classes.")
    elif max(photos_of.values()) < 2:
        raise EvaluationSetInvalid(f"{usable}; leave-one-out needs a class with at least two photos.")


def _scorer(
    queries: Embeddings, codes: Rows, gallery: Served | None, names: npt.NDArray[np.str_]
) -> Callable[[slice, Rows], Values] | None:
    """Scores of classes, int64 (n, K), for a part of the queries -> float64 (n, K); None for a gallery without them."""
    if gallery is None:
        fitted = ClassFit(queries.__getitem__, codes)
        return lambda part, near: fitted.scores_without(queries[part], codes[part], near)
    if gallery.decider is None:
        return None
    known = gallery.decider
    rows = np.zeros((len(names), queries.shape[1]), np.float32)
    rows[np.searchsorted(names, known.labels)] = known.weights.rows
    weights = ClassWeights(rows)
    return lambda part, near: weights.scores(queries[part], near)


def _search(
    queries: Embeddings,
    codes: Rows,
    relevant_count: Rows,
    store: VectorStore,
    row_codes: Rows,
    gallery: Served | None,
    scorer: Callable[[slice, Rows], Values] | None,
    before_chunk: Callable[[], None],
) -> tuple[Rows, Rows, npt.NDArray[np.float64], Decisions | None]:
    """The nearest row of each query, the rank of the first relevant one, AP@R, and the decision on its class.

    Its own row counts in a gallery. Rows whose code is -1 have no class.
    """
    labelled = np.flatnonzero(row_codes >= 0)
    among = None if len(labelled) == len(row_codes) else labelled
    depth = min(len(labelled), max(*RECALL_AT, NEIGHBOURS, int(relevant_count.max())))
    nearest, first_rank, precision, decided = [], [], [], []
    for start in range(0, len(queries), QUERIES_PER_CALL):
        before_chunk()
        part = slice(start, start + QUERIES_PER_CALL)
        own = np.arange(start, start + len(queries[part])) if gallery is None else None
        rows, scores = store.search(queries[part], depth, among=among, exclude_rows=own)
        relevant = (row_codes[rows] == codes[part, None]) & (rows >= 0)
        nearest.append(rows[:, 0])
        first_rank.append(first_relevant_rank(relevant))
        precision.append(average_precision_at_r(relevant, relevant_count[part]))
        if scorer is not None:
            if among is not None:
                rows, scores = store.search(queries[part], NEIGHBOURS, exclude_rows=own)
            near = np.where(rows >= 0, row_codes[rows], -1)[:, :NEIGHBOURS]
            decided.append(decide(near, scores[:, :NEIGHBOURS], scorer(part, near)))
    decisions = Decisions(*map(np.concatenate, zip(*decided, strict=True))) if decided else None
    return np.concatenate(nearest), np.concatenate(first_rank), np.concatenate(precision), decisions


def _confidence(
    decisions: Decisions, codes: Rows, answerable: npt.NDArray[np.bool_], gallery: Served | None
) -> Confidence | None:
    """How the probability does on queries that have their class to be found; None where there is none."""
    if not answerable.any():
        return None
    asked = decisions.only(answerable)
    right = asked.classes == codes[answerable]
    probabilities, certain = np.empty(len(right)), np.empty(len(right), np.bool_)
    if gallery is not None and gallery.decider is not None:
        parts = [(gallery.decider.calibration, np.ones(len(right), np.bool_))]
    else:
        half = np.random.default_rng(0).permutation(int(codes.max()) + 1)[codes[answerable]] % 2 == 0
        usable = np.bincount(codes)[codes[answerable]] >= PHOTOS_OF_CLASS  # as an index is fitted
        parts = [(fit(asked.only(~tried & usable), right[~tried & usable]), tried) for tried in (half, ~half)]
    for calibration, tried in parts:
        probabilities[tried] = calibration.probabilities(asked)[tried]
        certain[tried] = probabilities[tried] >= calibration.threshold(WANTED_PRECISION)
    return Confidence(
        wanted=WANTED_PRECISION,
        coverage=float(certain.mean()),
        precision=float(right[certain].mean()) if certain.any() else None,
        error=calibration_error(probabilities, right),
        auroc=auroc(probabilities, right),
    )


def _per_class(labels: Sequence[str], correct: npt.NDArray[np.bool_]) -> list[ClassScore]:
    names, codes = np.unique(np.array(labels), return_inverse=True)
    photos, hits = np.bincount(codes), np.bincount(codes, weights=correct).astype(int)
    return [
        ClassScore(label=str(name), photos=int(count), correct=int(hit), top1=float(hit / count))
        for name, count, hit in zip(names, photos, hits, strict=True)
    ]


def _versions(embedder: Embedder, gallery: Served | None) -> dict[str, str]:
    """What the scores depend on."""
    versions = {
        "model": embedder.card.name,
        "model_sha256": embedder.model_sha256,
        "embedding_id": embedder.embedding_id,
        "runtime": embedder.runtime.name,
        "precision": embedder.runtime.precision,
        "python": platform.python_version(),
    }
    if gallery is not None:
        versions["index"] = gallery.version
    for package in ("carsearch", "faiss-cpu", "faiss-gpu-cuvs", "numpy", "onnxruntime", "openvino", "pillow", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
