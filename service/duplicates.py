"""Duplicates in the gallery as it is served: copies of a file first, then photos that look almost the same.

A gallery of a million photos takes an hour of searches, so an answer is a page, and a page is found in short steps
between which other requests have their turn. Nothing is kept between pages: a place in the list of the gallery says how
far the search has come.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from indexer.benchmark.health import near_copy_cosine, near_pairs
from model.types import Rows
from service.engine import Engine

STEP_PHOTOS = 16
"""Photos whose neighbours are searched in one step: at a million photos 60 ms with lists, 2 s without."""

STEP_PARTS = 40
"""Parts of the list of contents that are read in one step: half a second."""

SAMPLED = 128
"""Photos that say how alike the gallery's photos are, where no `min_score` is asked for."""


class Pair(NamedTuple):
    """Two rows, in the order of the gallery, and their score: 1 for copies of one file."""

    first: int
    later: int
    score: float
    same_file: bool


@dataclass(frozen=True, slots=True)
class Place:
    """The photo after which a page begins, by the number with which it is listed, and whether copies are told by then.

    As text it is "copies:17" or "near:17".
    """

    near: bool = False
    after: int = -1

    @classmethod
    def read(cls, text: str) -> "Place":
        stage, _, after = text.partition(":")
        return cls(stage == "near", int(after))

    def __str__(self) -> str:
        return f"{'near' if self.near else 'copies'}:{self.after}"


@dataclass(frozen=True, slots=True)
class Found:
    """A page as far as it is found; `next` is where it ends, None for the end of the gallery.

    Near copies have been looked for of `compared` photos, on this page and those before, of `total`. `min_score` is
    None as long as none were looked for. A `full` page takes no more pairs.
    """

    pairs: tuple[Pair, ...]
    next: Place | None
    compared: int
    total: int
    min_score: float | None
    full: bool = False


def find_duplicates(engine: Engine, begin: Place, min_score: float | None, most: int) -> Iterator[Found]:
    """A page of at most `most` pairs, 10 or more, as it is after each step; the last one is full, or at the end.

    A pair is told at the later one of its photos in the list of the gallery: copies with the first photo of their file,
    near copies with those among the ten nearest photos that have at least `min_score`. By default that is what
    `near_copy_cosine` says of a sample.
    """
    rows, numbers = engine.listed()
    told: list[Pair] = []
    if not begin.near:
        contents = []
        for part in engine.contents():
            contents.append(part)
            if len(contents) % STEP_PARTS == 0:
                yield Found((), begin, 0, len(rows), None)
        first, later = _copies(np.concatenate(contents)[rows])
        begun = int(np.searchsorted(numbers[later], begin.after, "right"))
        page = slice(begun, begun + most)
        both = zip(rows[first[page]].tolist(), rows[later[page]].tolist(), strict=True)
        told = [Pair(one, copy, 1.0, True) for one, copy in both]
        full = len(later) > begun + most
        begin = Place(False, int(numbers[later[page]][-1])) if full else Place(near=True)
        yield Found(tuple(told), begin, 0, len(rows), None, full)
        if full:
            return
    if min_score is None:
        nearest: list[float] = []
        sample = rows[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(np.int64))]
        for start in range(0, len(sample), STEP_PHOTOS):
            scores = engine.neighbours_of(sample[start : start + STEP_PHOTOS]).scores[:, 0]
            nearest += scores[np.isfinite(scores)].tolist()
            yield Found(tuple(told), begin, 0, len(rows), None)
        min_score = near_copy_cosine(np.array(nearest or [1.0], np.float32))
    done = int(np.searchsorted(numbers, begin.after, "right"))
    while True:
        pairs_of = _near_copies(engine, rows[done : done + STEP_PHOTOS], min_score)
        sizes = np.cumsum([len(pairs) for pairs in pairs_of])
        fitting = int(np.searchsorted(sizes, most - len(told), "right"))
        told += [pair for pairs in pairs_of[:fitting] for pair in pairs]
        done += fitting
        full = fitting < len(pairs_of)
        place = Place(True, int(numbers[done - 1]) if done else -1) if done < len(rows) else None
        yield Found(tuple(told), place, done, len(rows), min_score, full)
        if full or done >= len(rows):
            return


def _copies(contents: Rows) -> tuple[Rows, Rows]:
    """Each photo whose content stands before it, too: the first place of that content, and its own, ascending."""
    order = np.argsort(contents, kind="stable")
    begins = np.flatnonzero(np.diff(contents[order], prepend=contents[order[:1]] + 1))
    first = np.repeat(order[begins], np.diff(begins, append=len(order)))
    later = np.flatnonzero(order != first)
    later = later[np.argsort(order[later])]
    return first[later], order[later]


def _near_copies(engine: Engine, rows: Rows, min_score: float) -> list[list[Pair]]:
    """Those of each of some photos that stand before it."""
    near = engine.neighbours_of(rows)
    before = np.where(near.rows < rows[:, None], near.rows, -1)
    found: list[list[Pair]] = [[] for _ in rows]

    def content(row: int) -> str:
        return engine.item(engine.name_of(row)[0]).sha256

    def same_file(place: int, other: int) -> bool:
        return content(int(rows[place])) == content(other)

    for place, other, score in near_pairs(before, near.scores, min_score, same_file):
        found[place].append(Pair(other, int(rows[place]), score, False))
    return found
