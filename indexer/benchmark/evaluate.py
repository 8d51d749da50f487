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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.benchmark.report import Answer, ClassScore, Confidence, Confusion, Details, Evaluation, Report
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
    details: bool = False,
) -> Evaluation:
    """Runs the benchmark: leave-one-out, or against `gallery` when one is given.

    `photos` may be the path of a labelled set, which `model.dataset.read_labelled` reads with `class_depth` and
    `exclude`. `skipped` are entries that its reader could not use; they are reported with those found here. `known`
    looks up embeddings of this embedder, so that those of an index are not computed again. `progress` is called with
    (done, total) and may raise to stop. `details` keeps what a report with pictures is made of. Raises
    EvaluationSetInvalid when no score is defined.
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
    versions, total = _versions(embedder, gallery), len(photos)
    return score(embedded, unusable, gallery, versions, lambda: progress(total, total), details)


def score(
    embedded: Sequence[Embedded],
    skipped: list[Skipped],
    gallery: Served | None,
    versions: dict[str, str],
    before_chunk: Callable[[], None] = lambda: None,
    details: bool = False,
) -> Evaluation:
    """The benchmark on embedded photos; see `evaluate`. `before_chunk` is called before each chunk and may raise."""
    queries = np.stack([one.embedding for one in embedded])
    photos = _photos_searched(embedded, queries, gallery)
    codes, files = photos.query_codes, Counter(photos.hashes)
    relevant_count = np.bincount(photos.codes, minlength=len(photos.names))[codes] - (gallery is None)
    copied = np.array([files[one.sha256] > (gallery is None) for one in embedded])
    found = _search(queries, photos, relevant_count, gallery, before_chunk)
    nearest = found.near[:, 0]
    correct = photos.codes[nearest] == codes
    decided = found.decisions
    right = None if decided is None else decided.classes == codes
    sure = None if decided is None else _probabilities(decided, codes, relevant_count > 0, gallery)
    by_class = np.unique(codes, return_inverse=True)[1]
    labels = [one.photo.label for one in embedded]
    report = Report(
        mode="leave-one-out" if gallery is None else "gallery",
        top1=float(correct.mean()),
        correct=int(correct.sum()),
        total=len(correct),
        ci95=bootstrap_over_classes(correct, by_class),
        ci95_photos=bootstrap_over_photos(correct),
        class_top1=None if right is None else float(right.mean()),
        class_ci95=None if right is None else bootstrap_over_classes(right, by_class),
        confidence=None if sure is None or right is None else _confidence(sure, right, relevant_count > 0),
        copies=int(copied.sum()),
        top1_without_copies=None if copied.all() else float(correct[~copied].mean()),
        recall_at={str(k): recall_at(found.first_rank, k) for k in RECALL_AT},
        map_at_r=float(found.precision.mean()),
        classes=len(set(labels)),
        per_class=_per_class(labels, correct),
        most_confused=[Confusion(*pair) for pair in most_confused(labels, [photos.labels[row] for row in nearest])],
        unanswerable=[one.photo.id for one, count in zip(embedded, relevant_count, strict=True) if count == 0],
        skipped=skipped,
        identical_in_gallery=None if gallery is None else int(copied.sum()),
        versions=versions,
    )
    kept = _details(embedded, queries, photos, found) if details else None
    return Evaluation(report, _answers(embedded, photos, found, sure), copies_among(embedded), kept)


class _Searched(NamedTuple):
    """The N photos that are searched: ids, classes (empty for none) and sha256.

    `codes` int64 (N,) and `query_codes` int64 (n,) number the classes of photos and queries by their place in `names`.
    """

    store: VectorStore
    ids: Sequence[str]
    labels: Sequence[str]
    hashes: Sequence[str]
    names: npt.NDArray[np.str_]
    codes: Rows
    query_codes: Rows


def _photos_searched(embedded: Sequence[Embedded], queries: Embeddings, gallery: Served | None) -> _Searched:
    labels = [one.photo.label for one in embedded]
    if gallery is None:
        store: VectorStore = FaissStore.create(queries)
        ids, found_labels, hashes = [one.photo.id for one in embedded], labels, [one.sha256 for one in embedded]
    else:
        store, rows = gallery.store, gallery.items.all()
        ids, found_labels, hashes = [row.id for row in rows], [row.label for row in rows], [row.sha256 for row in rows]
    names, both = np.unique(np.array([*labels, *found_labels]), return_inverse=True)
    query_codes, codes = np.split(both, [len(labels)])
    return _Searched(store, ids, found_labels, hashes, names, codes, query_codes)


def _answers(embedded: Sequence[Embedded], photos: _Searched, found: "_Found", sure: "_Sure | None") -> list[Answer]:
    classes = np.full(len(embedded), -1) if found.decisions is None else found.decisions.classes
    probabilities = np.full(len(embedded), np.nan) if sure is None else sure.probabilities
    return [
        Answer(
            id=one.photo.id,
            label=one.photo.label,
            nearest=photos.ids[row],
            nearest_label=photos.labels[row],
            score=min(float(score), 1.0),
            decided=str(photos.names[code]) if code >= 0 else None,
            probability=float(probability) if code >= 0 and not np.isnan(probability) else None,
        )
        for one, row, score, code, probability in zip(
            embedded, found.near[:, 0], found.scores[:, 0], classes, probabilities, strict=True
        )
    ]


def _details(embedded: Sequence[Embedded], queries: Embeddings, photos: _Searched, found: "_Found") -> Details:
    return Details(
        photos=[one.photo for one in embedded],
        embeddings=queries,
        hashes=[one.sha256 for one in embedded],
        near=found.near,
        scores=found.scores,
        first_rank=found.first_rank,
        depth=found.depth,
        ids=photos.ids,
        labels=photos.labels,
        found_hashes=photos.hashes,
    )


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


class _Found(NamedTuple):
    """What n queries found: the nearest rows with a class, at most ten, best first, and their cosines; see `Details`.

    `precision` float64 (n,) is AP@R. `decisions` are None for a gallery that cannot decide.
    """

    near: Rows
    scores: Embeddings
    first_rank: Rows
    precision: npt.NDArray[np.float64]
    decisions: Decisions | None
    depth: int


def _search(
    queries: Embeddings,
    photos: _Searched,
    relevant_count: Rows,
    gallery: Served | None,
    before_chunk: Callable[[], None],
) -> _Found:
    """Searches for each query; its own row counts in a gallery, and is left out of the set otherwise."""
    codes = photos.query_codes
    row_codes = np.where(np.array(photos.labels) == "", -1, photos.codes)
    scorer = _scorer(queries, codes, gallery, photos.names)
    labelled = np.flatnonzero(row_codes >= 0)
    among = None if len(labelled) == len(row_codes) else labelled
    depth = min(len(labelled), max(*RECALL_AT, NEIGHBOURS, int(relevant_count.max())))
    near, cosines, first_rank, precision, decided = [], [], [], [], []
    for start in range(0, len(queries), QUERIES_PER_CALL):
        before_chunk()
        part = slice(start, start + QUERIES_PER_CALL)
        own = np.arange(start, start + len(queries[part])) if gallery is None else None
        rows, scores = photos.store.search(queries[part], depth, among=among, exclude_rows=own)
        relevant = (row_codes[rows] == codes[part, None]) & (rows >= 0)
        near.append(rows[:, :NEIGHBOURS].copy())  # a view would keep the whole depth
        cosines.append(scores[:, :NEIGHBOURS].copy())
        first_rank.append(first_relevant_rank(relevant))
        precision.append(average_precision_at_r(relevant, relevant_count[part]))
        if scorer is not None:
            if among is not None:
                rows, scores = photos.store.search(queries[part], NEIGHBOURS, exclude_rows=own)
            of_near = np.where(rows >= 0, row_codes[rows], -1)[:, :NEIGHBOURS]
            decided.append(decide(of_near, scores[:, :NEIGHBOURS], scorer(part, of_near)))
    decisions = Decisions(*map(np.concatenate, zip(*decided, strict=True))) if decided else None
    return _Found(
        near=np.concatenate(near),
        scores=np.concatenate(cosines),
        first_rank=np.concatenate(first_rank),
        precision=np.concatenate(precision),
        decisions=decisions,
        depth=depth,
    )


class _Sure(NamedTuple):
    """Of n decisions: probabilities float64 (n,), and whether each is high enough for WANTED_PRECISION, bool (n,)."""

    probabilities: Values
    certain: npt.NDArray[np.bool_]


def _probabilities(
    decisions: Decisions, codes: Rows, answerable: npt.NDArray[np.bool_], gallery: Served | None
) -> _Sure:
    """The probabilities of a gallery's own fit; for leave-one-out those of fits to the other half of the classes."""
    right = decisions.classes == codes
    probabilities, certain = np.empty(len(right)), np.empty(len(right), np.bool_)
    if gallery is not None and gallery.decider is not None:
        parts = [(gallery.decider.calibration, np.ones(len(right), np.bool_))]
    else:
        half = np.random.default_rng(0).permutation(int(codes.max()) + 1)[codes] % 2 == 0
        usable = answerable & (np.bincount(codes)[codes] >= PHOTOS_OF_CLASS)  # as an index is fitted
        fitted = [(usable & ~tried, tried) for tried in (half, ~half)]
        parts = [(fit(decisions.only(known), right[known]), tried) for known, tried in fitted]
    for calibration, tried in parts:
        probabilities[tried] = calibration.probabilities(decisions)[tried]
        certain[tried] = probabilities[tried] >= calibration.threshold(WANTED_PRECISION)
    return _Sure(probabilities, certain)


def _confidence(sure: _Sure, right: npt.NDArray[np.bool_], answerable: npt.NDArray[np.bool_]) -> Confidence | None:
    """How the probability does on queries that have their class to be found; None where there is none."""
    if not answerable.any():
        return None
    probabilities, certain, right = sure.probabilities[answerable], sure.certain[answerable], right[answerable]
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
