"""One loaded (model, index) pair, which answers searches. It is swapped whole and never changes."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from indexer.benchmark.evaluate import Served
from indexer.decider import Decider, Decision
from indexer.decision import NEIGHBOURS
from indexer.items import GalleryItem, ItemNames, ItemTable
from indexer.load import load_embedder, read_contents
from indexer.manifest import Manifest
from indexer.stores.base import Neighbours
from indexer.stores.faiss import FaissStore
from indexer.versions import IndexDirectory
from model.card import card_sha256
from model.dataset import normalise_label
from model.embedder import Embedder, find_model
from model.errors import InvalidK, ModelMismatch
from model.images.sources import PhotoSource
from model.runtimes.base import Pending
from model.types import Embeddings, Pixels, Rows

MAX_K = 100
CAR_THRESHOLD = 0.5
"""Lowest probability of a car at which a class is named: record 19 of docs/decisions.md says what passes."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One photo of the gallery; `rank` is from 1, `score` the cosine of the embeddings, at most 1."""

    rank: int
    id: str
    label: str
    score: float


@dataclass(frozen=True)
class Versions:
    """What answers: an index version, its model and the id of its embeddings."""

    index: str
    model: str
    model_sha256: str
    embedding_id: str


class Found(NamedTuple):
    """Hits, best first, and the class that the whole gallery speaks for.

    `decision` is None where only some classes were asked for, and for an index without photos.
    """

    hits: list[Hit]
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What was found, and the milliseconds of each stage: decode, forward, search."""

    found: Found
    stages_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Query:
    """A decoded photo, uint8 (S, S, 3), and what is asked: the k nearest, among some rows int64 (n,) or among all."""

    crop: Pixels
    k: int
    among: Rows | None


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything that one index version needs to answer; safe to use from several threads."""

    manifest: Manifest
    embedder: Embedder
    store: FaissStore
    items: ItemTable
    names: ItemNames
    decider: Decider | None
    gallery_root: Path

    @classmethod
    def load(
        cls,
        index: IndexDirectory,
        version: str | None = None,
        *,
        model: str | None = None,
        runtime: str = "auto",
        cache_dir: Path | None = None,
        gallery_dir: Path | None = None,
        previous: "Engine | None" = None,
    ) -> "Engine":
        """Verifies and loads a version (by default the one CURRENT names) and its model.

        The model runs in the precision that the index was built in. `model` asserts which model it must be. `previous`
        lends its model when that is the same. Raises IndexInvalid, ModelInvalid and their kinds; ModelMismatch when
        index, model and runtime do not belong together.
        """
        manifest = index.verify(version or index.current())
        if model is not None and (sha256 := card_sha256(find_model(model))) != manifest.model_sha256:
            raise ModelMismatch(
                f"Index version {manifest.id} was built with the model {manifest.model_sha256[:12]}, and {model} is "
                f"{sha256[:12]}; build the index again or serve without --model."
            )
        embedder = load_embedder(index, manifest, runtime, cache_dir, previous.embedder if previous else None)
        contents = read_contents(index.path_of(manifest.id), manifest)
        return cls(manifest, embedder, *contents, gallery_dir or Path(manifest.gallery["root"]))

    @property
    def versions(self) -> Versions:
        return Versions(
            index=self.manifest.id,
            model=self.manifest.model_name,
            model_sha256=self.manifest.model_sha256,
            embedding_id=self.embedder.embedding_id,
        )

    @property
    def served(self) -> Served:
        """This gallery, to evaluate against."""
        return Served(self.store, self.items, self.manifest.id, self.decider)

    def search(self, photo: PhotoSource, k: int = 5, classes: Sequence[str] = ()) -> list[Hit]:
        """The k nearest photos of the gallery, best first; only those of `classes` where there are any.

        Raises InvalidK, UnknownClass, ImageRejected, and FileUnreadable for a path.
        """
        return self.answer(self.query(photo, k, classes)).found.hits

    def decide(self, photo: PhotoSource) -> Decision | None:
        """The class of a photo, and the probability that it is right; None for an index without photos.

        Raises ImageRejected, and FileUnreadable for a path.
        """
        return self.answer(self.query(photo, 1)).found.decision

    def outcome(self, found: Found, precision: float) -> dict[str, Any] | None:
        """A decision as it is answered: "class", "not_a_car", or "unsure" where such decisions are right too seldom."""
        if found.decision is None or self.decider is None:
            return None
        made = found.decision
        sure = made.probability >= self.decider.calibration.threshold(precision)
        car = made.car_probability
        no_car = car is not None and car < CAR_THRESHOLD
        return {
            "outcome": "not_a_car" if no_car else "class" if sure else "unsure",
            "class": made.label,
            "probability": round(made.probability, 4),
            "agreement": round(made.agreement, 4),
            "car_probability": None if car is None else round(car, 4),
        }

    def query(self, photo: PhotoSource, k: int, labels: Sequence[str] = ()) -> Query:
        """Decodes a photo, and finds out what it is to be searched among; raises as `search` does."""
        if not 1 <= k <= MAX_K:
            raise InvalidK(f"k must be a whole number from 1 to {MAX_K}.")
        crop = self.embedder.prepare(photo)
        return Query(crop, k, self.items.rows_of([normalise_label(label) for label in labels]) if labels else None)

    def submit(self, queries: Sequence[Query], *, lone: bool = False) -> Pending:
        """Starts on the embeddings of some queries; `lone` ones may have all cores."""
        crops = np.stack([query.crop for query in queries]) if len(queries) > 1 else queries[0].crop[None]
        return self.embedder.submit_crops(crops, lone=lone)

    def answer(self, query: Query) -> SearchResult:
        """What one query finds, and the milliseconds of `forward` and `search`."""
        started = time.perf_counter()
        embeddings = self.submit([query], lone=True).wait()
        embedded = time.perf_counter()
        (found,) = self.nearest(embeddings, [query])
        search_ms = (time.perf_counter() - embedded) * 1000
        return SearchResult(found, {"forward": (embedded - started) * 1000, "search": search_ms})

    def nearest(self, embeddings: Embeddings, queries: Sequence[Query]) -> list[Found]:
        """What each query finds, by its row of float32 (B, D); all among the whole gallery are searched in one call."""
        found: dict[int, Found] = {}
        whole = [place for place, query in enumerate(queries) if query.among is None]
        some = [[place] for place, query in enumerate(queries) if query.among is not None]
        for places in [whole, *some] if whole else some:
            most = max(NEIGHBOURS, *(queries[place].k for place in places))
            # One thread: another is decoding meanwhile, and those of OpenMP spin for a while when they have finished.
            near = self.store.search(embeddings[places], most, among=queries[places[0]].among, threads=1)
            decisions = self._decide(embeddings[places], near) if places is whole else [None] * len(places)
            for place, rows, scores, decision in zip(places, near.rows, near.scores, decisions, strict=True):
                best = zip(rows[rows >= 0][: queries[place].k].tolist(), scores.tolist(), strict=False)
                # No cosine is above 1, but rows are rounded; only what is told is cut, so that the order stays.
                hits = [Hit(rank, *self.names.at(row), min(score, 1.0)) for rank, (row, score) in enumerate(best, 1)]
                found[place] = Found(hits, decision)
        return [found[place] for place in range(len(queries))]

    def _decide(self, embeddings: Embeddings, near: Neighbours) -> Sequence[Decision | None]:
        """Decides on queries float32 (B, D) from their nearest photos of the whole gallery."""
        if self.decider is None:
            return [None] * len(embeddings)
        made = self.decider.decide(embeddings, near)
        if self.embedder.car_head is None:
            return made
        cars = self.embedder.car_head.probabilities(embeddings).tolist()
        return [replace(one, car_probability=car) for one, car in zip(made, cars, strict=True)]

    def photo_path(self, item: GalleryItem) -> Path:
        """Where a photo of the gallery lies."""
        return self.gallery_root / os.fsdecode(item.path)


def open_index(index: str | Path, version: str | None = None, *, runtime: str = "auto") -> Engine:
    """Opens an index directory, by default in its current version; raises as `Engine.load`."""
    return Engine.load(IndexDirectory(Path(index)), version, runtime=runtime)
