"""The health of a set of photos: near copies, photos whose class may be wrong, classes with few photos.

All of it is read from what an evaluation has found, the ten nearest photos of each query. A server looks for near
copies in its gallery by the same rules.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.benchmark.report import Details
from model.types import Embeddings, Rows

NEAR_COPY = 0.82
"""Cosine from which photos are near copies: in the model for real photos one shot has more, encoded anew or cut a
little, and two shots have less.
"""

ALIKE_SHARE, ALIKE_AT_MOST = 0.99, 0.97
"""Of models that find all photos of a set alike only the most alike hundredth counts, or what is nearly identical."""

SUSPECT_SHARE = 0.8
"""Share of a photo's nearest photos that must be of one other class for its own to be in doubt."""

SUSPECT_PHOTOS = 4
"""The fewest neighbours of another class that make a label doubtful: two photos say too little."""

FEW_PHOTOS = 5
"""Classes with fewer photos are told: docs/benchmark.md says how much photos add."""


@dataclass(frozen=True, slots=True)
class NearCopy:
    """Two photos, by their ids, that are not the same file and look almost the same."""

    id: str
    label: str
    other: str
    other_label: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """A photo that looks like another class than its own: `count` of its `of` nearest photos are of that class."""

    id: str
    label: str
    looks_like: str
    count: int
    of: int
    neighbours: tuple[str, ...]
    """The nearest photos of that class, best first."""


def near_copy_cosine(nearest: Embeddings) -> float:
    """The cosine from which two photos of a set count as near copies, by those of photos to their nearest (n,)."""
    usual = float(np.quantile(nearest, ALIKE_SHARE))
    return max(NEAR_COPY, min(usual, ALIKE_AT_MOST))


def near_pairs(
    near: Rows, scores: Embeddings, cosine: float, same_file: Callable[[int, int], bool]
) -> Iterator[tuple[int, int, float]]:
    """Each query with each of its nearest rows that has at least this cosine and is not the same file: near copies.

    `near` int64 (n, K) are the nearest rows of n queries, -1 where there are no more, and `scores` float32 (n, K) their
    cosines. A pair is the number of its query, its row and its cosine, at most 1.
    """
    for query, place in np.argwhere((near >= 0) & (scores >= cosine)).tolist():
        row = int(near[query, place])
        if not same_file(query, row):
            yield query, row, min(float(scores[query, place]), 1.0)


def near_copies(details: Details, cosine: float) -> list[NearCopy]:
    """Pairs of a query and a photo among its nearest with at least this cosine and other content, most alike first."""
    found: dict[frozenset[str], NearCopy] = {}

    def same_file(query: int, row: int) -> bool:
        return details.hashes[query] == details.found_hashes[row]

    for query, row, score in near_pairs(details.near, details.scores, cosine, same_file):
        photo = details.photos[query]
        pair = NearCopy(photo.id, photo.label, details.ids[row], details.labels[row], score)
        found.setdefault(frozenset((pair.id, pair.other)), pair)
    return sorted(found.values(), key=lambda pair: (-pair.cosine, pair.id, pair.other))


def suspects(details: Details, share: float = SUSPECT_SHARE) -> list[Suspect]:
    """Photos whose nearest photos agree on another class, the clearest first: their class may be wrong.

    A class with fewer than ten photos cannot fill the ten nearest, so as many are looked at as it has. Photos that have
    two of their own class among the ten are in no doubt.
    """
    sizes = Counter(details.labels)
    found = []
    for photo, near, scores in zip(details.photos, details.near, details.scores, strict=True):
        rows = near[near >= 0]
        labels = [details.labels[row] for row in rows]
        label = Counter(labels).most_common(1)[0][0]
        of = min(len(rows), sizes[label])
        count = labels[:of].count(label)
        if label != photo.label and count >= max(SUSPECT_PHOTOS, share * of) and labels.count(photo.label) < 2:
            alike = tuple(details.ids[row] for row in rows if details.labels[row] == label)
            found.append((-count / of, -float(scores[0]), Suspect(photo.id, photo.label, label, count, of, alike)))
    return [suspect for *_, suspect in sorted(found, key=lambda one: (one[0], one[1], one[2].id))]


def small_classes(labels: Sequence[str], fewer_than: int = FEW_PHOTOS) -> list[tuple[str, int]]:
    """Classes with fewer photos than that and their numbers, fewest first; photos without a class do not count."""
    counts = Counter(label for label in labels if label)
    return sorted(
        ((label, count) for label, count in counts.items() if count < fewer_than), key=lambda one: (one[1], one[0])
    )
