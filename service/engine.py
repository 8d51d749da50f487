"""One loaded (model, index) pair, which answers searches. It is swapped whole and never changes."""

import logging
import math
import os
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.benchmark.evaluate import Served
from indexer.decider import Decider, Decision
from indexer.decision import NEIGHBOURS
from indexer.delta import Change, DeltaLog, photo_path
from indexer.items import GalleryItem, ItemNames, ItemTable, sha256_bytes
from indexer.load import load_embedder
from indexer.manifest import Manifest
from indexer.metadata import Column, Value
from indexer.snapshot import Snapshot
from indexer.stores.base import Neighbours
from indexer.stores.candidates import CandidateStore
from indexer.versions import IndexDirectory
from model.card import card_sha256
from model.dataset import read_file
from model.embedder import Embedder, find_model
from model.errors import FileUnreadable, ImageRejected, InvalidK, ModelMismatch, UnknownItem
from model.images.box import Box
from model.images.sources import PhotoSource, read_source
from model.runtimes.base import Pending
from model.types import Embeddings, Pixels, Rows
from service.explain import Explainer
from service.heat import seen
from service.notebook import DrawnExplanation, Hits

MAX_K = 100
ROWS_A_CLASS = 10
"""Nearest rows for each class that is asked for: those of most galleries are of enough classes."""

Scores = npt.NDArray[np.float32]
CAR_THRESHOLD = 0.5
"""Lowest probability of a car at which a class is named: record 19 of docs/decisions.md says what passes."""

log = logging.getLogger("carsearch")


@dataclass(frozen=True, slots=True)
class Hit:
    """One photo of the gallery: rank from 1, class (empty for none), cosine of the embeddings (at most 1).

    `metadata` has the cells of the gallery's spreadsheet that are not empty.
    """

    rank: int
    id: str
    label: str
    score: float
    metadata: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Versions:
    """What answers: an index version, its model and the id of its embeddings."""

    index: str
    model: str
    model_sha256: str
    embedding_id: str


class Found(NamedTuple):
    """Hits, best first, and the class that the whole gallery speaks for.

    `decision` is None where only some classes or a filter were asked for, and where no photo near by has a class.
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
    """A decoded photo, uint8 (S, S, 3), and what is asked: the k nearest, among some rows int64 (n,) or among all.

    Instead of a photo there may be a row of the gallery: `like` is searched by its embedding, and left out itself.
    `by_class` asks for the best photo of each class, of k classes.
    """

    crop: Pixels | None
    k: int
    among: Rows | None
    min_score: float = -math.inf
    by_class: bool = False
    like: int | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything that one index version needs to answer; safe to use from several threads.

    `snapshot` is what was put and deleted since, None for nothing; photos that were put lie in `delta_dir`.
    `decider_now` is the decider with these changes.
    """

    manifest: Manifest
    embedder: Embedder
    store: CandidateStore
    items: ItemTable
    names: ItemNames
    decider: Decider | None
    gallery_root: Path
    delta_dir: Path | None = None
    snapshot: Snapshot | None = None
    decider_now: Decider | None = None

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
        delta_dir: Path | None = None,
        previous: "Engine | None" = None,
        verified: bool = False,
    ) -> "Engine":
        """Verifies and loads a version (by default the one CURRENT names) and its model.

        The model runs in the precision that the index was built in. `model` asserts which model it must be. `previous`
        lends its model when that is the same. Of a version that was `verified` before, only sizes and structure are
        checked. Raises IndexInvalid, ModelInvalid and their kinds; ModelMismatch when index, model and runtime do not
        belong together.
        """
        manifest = index.verify(version or index.current(), contents=not verified)
        if model is not None and (sha256 := card_sha256(find_model(model))) != manifest.model_sha256:
            raise ModelMismatch(
                f"Index version {manifest.id} was built with the model {manifest.model_sha256[:12]}, and {model} is "
                f"{sha256[:12]}; build the index again or serve without --model."
            )
        embedder = load_embedder(index, manifest, runtime, cache_dir, previous.embedder if previous else None)
        contents = index.contents(manifest, whole=not verified)
        return cls(manifest, embedder, *contents, gallery_dir or Path(manifest.gallery["root"]), delta_dir)

    def caught_up(self, changes: DeltaLog) -> "Engine":
        """This with all that the log has by now; raises DeltaUnusable.

        Photos that another model has embedded are embedded by this one first. One that cannot be is left out, and the
        log says so.
        """
        after = self.manifest.sequence if self.snapshot is None else self.snapshot.sequence
        found = changes.changes(after)
        if not found:
            return self
        before = Snapshot(self.items, self.names, after) if self.snapshot is None else self.snapshot
        now = before.followed_by(found, lambda change: self._vector(changes, change))
        return replace(self, snapshot=now, decider_now=self._decider_after(before, now))

    def _decider_after(self, before: Snapshot, now: Snapshot) -> Decider | None:
        """The decider with the photos that came and went between two snapshots."""
        if (decider := self.decider_now or self.decider) is None:
            return None
        came, went = now.differences(before)
        rows, steps = np.concatenate([came, went]), [1] * len(came) + [-1] * len(went)
        return decider.followed_by(now.labels, now.codes_of(rows), now.vectors(self.store, rows), steps)

    def _vector(self, changes: DeltaLog, change: Change) -> Embeddings | None:
        assert change.sha256 is not None  # noqa: S101  # the caller asks for photos only
        known = changes.embedding(change.sha256, self.fits)
        if known is not None:
            return known
        try:
            vector = self.embedder.embed_photo(changes.read(change.sha256))
        except (FileUnreadable, ImageRejected) as problem:
            log.error("change %d of the log cannot be shown: %s", change.sequence, problem)
            return None
        changes.add_embedding(change.sha256, self.embedder.embedding_id, vector)
        return vector

    def fits(self, embedding_id: str) -> bool:
        """Tells if embeddings with this embedding id may be compared with those of this version."""
        return self.embedder.card.interchangeable(self.manifest.embedding_id, embedding_id)

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
        """This gallery, to evaluate against, as it was indexed."""
        return Served(self.store, self.items, self.manifest.id, self.decider)

    def search(self, photo: PhotoSource, k: int = 5, classes: Sequence[str] = (), where: str | None = None) -> Hits:
        """The k nearest photos of the gallery, best first; only those of `classes` where there are any.

        `where` leaves only photos whose metadata pass a filter, such as "price < 20000 and year >= 2018"; see
        docs/filters.md. Raises InvalidK, UnknownClass, InvalidFilter, ImageRejected, and FileUnreadable for a path.
        """
        return Hits(self.answer(self.query(photo, k, self.rows(classes, where))).found.hits, self)

    def decide(self, photo: PhotoSource) -> Decision | None:
        """The class of a photo, and the probability that it is right; None where no photo near by has a class.

        Raises ImageRejected, and FileUnreadable for a path.
        """
        return self.answer(self.query(photo, 1)).found.decision

    def explain(self, photo: PhotoSource, identity: str, box: Box | None = None) -> DrawnExplanation:
        """Why a photo, or its box, matches one of the gallery, by its id: their cosine by the places of each photo.

        The first call loads a second graph. Raises ExplanationUnavailable when the model cannot say; UnknownItem, and
        FileUnreadable for a photo of the gallery that is gone; otherwise as `search` does.
        """
        source, spec = read_source(photo), self.embedder.card.input
        made = Explainer(self, self.query(source, 1, box=box)).explain(identity)
        original = self.original(self.item(identity))
        photos = seen(source, spec, box), seen(original, spec)
        return DrawnExplanation(made.query, made.hit, made.constant, photos)

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

    def rows(self, labels: Sequence[str] = (), where: str | None = None) -> Rows | None:
        """The rows of some classes that pass a filter, int64 (n,), ascending; None where neither is asked for.

        Raises UnknownClass and InvalidFilter.
        """
        of_classes = self._gallery.rows_of(labels) if labels else None
        if where is None:
            return of_classes
        passing = self._gallery.rows_where(where)
        return passing if of_classes is None else np.intersect1d(of_classes, passing, assume_unique=True)

    def query(
        self,
        photo: PhotoSource,
        k: int,
        among: Rows | None = None,
        *,
        box: Box | None = None,
        min_score: float = -math.inf,
        by_class: bool = False,
    ) -> Query:
        """Decodes a photo, or its box, to be searched among some `rows` or all.

        Raises InvalidK, InvalidBox, ImageRejected, and FileUnreadable for a path.
        """
        _check_k(k)
        return Query(self.embedder.prepare(photo, box), k, among, min_score, by_class)

    def query_like(
        self,
        identity: str,
        k: int,
        among: Rows | None = None,
        *,
        min_score: float = -math.inf,
        by_class: bool = False,
    ) -> Query:
        """What asks for photos like one of the gallery, by its id; raises InvalidK and UnknownItem."""
        _check_k(k)
        return Query(None, k, among, min_score, by_class, self.item(identity).row)

    def submit(self, queries: Sequence[Query], *, lone: bool = False) -> Pending:
        """Starts on the embeddings of some queries; `lone` ones may have all cores."""
        crops = [query.crop for query in queries if query.crop is not None]
        return self.embedder.submit_crops(np.stack(crops) if len(crops) > 1 else crops[0][None], lone=lone)

    def answer(self, query: Query) -> SearchResult:
        """What one query finds, and the milliseconds of `forward` and `search`."""
        started = time.perf_counter()
        like = query.like
        embeddings = self.submit([query], lone=True).wait() if like is None else self._vectors(np.array([like]))
        embedded = time.perf_counter()
        (found,) = self.nearest(embeddings, [query])
        search_ms = (time.perf_counter() - embedded) * 1000
        return SearchResult(found, {"forward": (embedded - started) * 1000, "search": search_ms})

    def nearest(self, embeddings: Embeddings, queries: Sequence[Query]) -> list[Found]:
        """What each query finds, by its row of float32 (B, D); all among the whole gallery are searched in one call."""
        found: dict[int, Found] = {}
        unrestricted = [place for place, query in enumerate(queries) if query.among is None and query.like is None]
        restricted = [[place] for place in range(len(queries)) if place not in unrestricted]
        for places in [unrestricted, *restricted] if unrestricted else restricted:
            among, like = queries[places[0]].among, queries[places[0]].like
            wanted = [queries[place].k * (ROWS_A_CLASS if queries[place].by_class else 1) for place in places]
            near = self._near(embeddings[places], max(NEIGHBOURS, *wanted), among, like)
            decisions = self._decide(embeddings[places], near) if among is None else [None] * len(places)
            for place, rows, scores, decision in zip(places, near.rows, near.scores, decisions, strict=True):
                found[place] = Found(self._hits(queries[place], embeddings[place], rows, scores), decision)
        return self._with_metadata([found[place] for place in range(len(queries))])

    def _near(self, embeddings: Embeddings, k: int, among: Rows | None, like: int | None) -> Neighbours:
        """The k nearest rows, among some or all, but for the row `like`."""
        if self.snapshot is not None:
            return self.snapshot.search(self.store, embeddings, k, among, like)
        left_out = None if like is None else np.array([like])
        # One thread: another is decoding meanwhile, and those of OpenMP spin for a while when they have finished.
        return self.store.search(embeddings, k, among=among, exclude_rows=left_out, threads=1)

    def _with_metadata(self, found: list[Found]) -> list[Found]:
        """Adds the metadata of all hits, read at once; as it is where the gallery has none."""
        if not self.columns:
            return found
        metadata = self.metadata_of(list({hit.id for one in found for hit in one.hits}))
        return [
            one._replace(hits=[replace(hit, metadata=metadata.get(hit.id, {})) for hit in one.hits]) for one in found
        ]

    def _hits(self, query: Query, embedding: Embeddings, rows: Rows, scores: Scores) -> list[Hit]:
        """What is asked for, of the nearest rows int64 (n,) with their scores, of which some may be -1 at the end."""
        rows = rows[rows >= 0]
        if query.by_class:
            rows, scores = self._best_of_classes(query, embedding, rows, scores)
        best = zip(rows[: query.k].tolist(), scores.tolist(), strict=False)
        return [
            # No cosine is above 1, but rows are rounded; only what is told is cut, so that the order stays.
            Hit(rank, *self.name_of(row), min(score, 1.0))
            for rank, (row, score) in enumerate(best, 1)
            if score >= query.min_score
        ]

    def _best_of_classes(self, query: Query, embedding: Embeddings, rows: Rows, scores: Scores) -> tuple[Rows, Scores]:
        """The best row of each class, best first, of the k classes that have the best; none of rows without a class.

        `rows` are the nearest ones, with their scores. Where they are of fewer classes, the store compares all rows.
        """
        codes = self.names.codes
        found = codes[rows] if self.snapshot is None else self.snapshot.codes_of(rows)
        classes, first = np.unique(found, return_index=True)
        first = np.sort(first[classes >= 0])
        if len(first) >= query.k or (len(rows) and scores[len(rows) - 1] < query.min_score):
            return rows[first], scores[first]
        if self.snapshot is not None:
            return self.snapshot.best_of_classes(self.store, embedding, query.k, query.among, query.like)
        groups, among = np.full_like(codes, -1), slice(None) if query.among is None else query.among
        groups[among] = codes[among]
        if query.like is not None:
            groups[query.like] = -1
        return self.store.best_of_groups(embedding, groups, query.k)

    def _decide(self, embeddings: Embeddings, near: Neighbours) -> Sequence[Decision | None]:
        """Decides on queries float32 (B, D) from their nearest photos of the whole gallery."""
        if self.decider is None or near.rows[0, 0] < 0:  # no photo but the one that is left out
            return [None] * len(embeddings)
        made = self._decided(self.decider_now or self.decider, embeddings, near)
        if self.embedder.car_head is None:
            return made
        cars = self.embedder.car_head.probabilities(embeddings).tolist()
        return [one and replace(one, car_probability=car) for one, car in zip(made, cars, strict=True)]

    def _decided(self, decider: Decider, embeddings: Embeddings, near: Neighbours) -> Sequence[Decision | None]:
        """None too where the nearest photo is of a class without weights (`Decider.followed_by`).

        Other photos of such classes have no vote.
        """
        if self.snapshot is None:
            return decider.decide(embeddings, near)
        codes = self.snapshot.codes_of(near.rows[:, :NEIGHBOURS])
        new = codes >= len(decider.labels)
        made = decider.decide(embeddings, near, np.where(new, -1, codes))
        return [None if is_new else one for is_new, one in zip(new[:, 0], made, strict=True)]

    # The gallery as it is now: the version, and what was put and deleted since.

    @property
    def _gallery(self) -> ItemTable | Snapshot:
        return self.items if self.snapshot is None else self.snapshot

    @property
    def changes(self) -> int:
        """How many changes stand beside the version, with those that later ones have replaced."""
        return 0 if self.snapshot is None else self.snapshot.log_rows

    @property
    def photos(self) -> int:
        """The number of photos."""
        return len(self.store) if self.snapshot is None else self.snapshot.photos

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the metadata."""
        return self._gallery.columns

    def item(self, identity: str) -> GalleryItem:
        """A photo by its id, in any form of Unicode; raises UnknownItem."""
        return self._gallery.by_id(unicodedata.normalize("NFC", identity))

    def name_of(self, row: int) -> tuple[str, str]:
        """Id and class of a row, the class empty where it has none."""
        return self.names.at(row) if self.snapshot is None else self.snapshot.name_of(row)

    def metadata_of(self, ids: Sequence[str]) -> dict[str, dict[str, Value]]:
        """Id -> its metadata by column, for those of some photos that have any; empty cells are left out."""
        return self._gallery.metadata_of(ids)

    def classes(self) -> dict[str, int]:
        """Class -> number of photos, in alphabetical order."""
        return self._gallery.classes()

    def listed(self, labels: Sequence[str] = (), where: str | None = None) -> tuple[Rows, Rows]:
        """The rows of some classes that pass a filter, and the numbers by which they are listed; raises as `rows`."""
        rows = self.rows(labels, where)
        if self.snapshot is None:
            rows = np.arange(len(self.store)) if rows is None else rows
            return rows, rows
        rows = self.snapshot.rows if rows is None else rows
        return rows, self.snapshot.order_of(rows)

    def contents(self) -> Iterator[Rows]:
        """A number for each row that copies of a file share and other photos do not: int64 (n,), in parts."""
        return self._gallery.contents()

    def neighbours_of(self, rows: Rows) -> Neighbours:
        """The ten nearest other photos of each of some rows, int64 (n,)."""
        near = self._near(self._vectors(rows), NEIGHBOURS + 1, None, None)
        others = np.argsort(near.rows == rows[:, None], axis=1, kind="stable")[:, :NEIGHBOURS]  # itself goes last
        return Neighbours(np.take_along_axis(near.rows, others, 1), np.take_along_axis(near.scores, others, 1))

    def _vectors(self, rows: Rows) -> Embeddings:
        """The vectors of some rows, int64 (n,) -> float32 (n, D)."""
        return self.store.vectors(rows) if self.snapshot is None else self.snapshot.vectors(self.store, rows)

    def original(self, item: GalleryItem) -> bytes:
        """The file of a photo of the gallery; raises FileUnreadable, and UnknownItem when it has changed."""
        data = read_file(self.photo_path(item))
        if sha256_bytes(data) != item.sha256:
            raise UnknownItem("The photo has changed since the gallery was indexed.")
        return data

    def photo_path(self, item: GalleryItem) -> Path:
        """Where a photo of the gallery lies; raises UnknownItem for one that was put and a server without the log."""
        if not item.path:
            if self.delta_dir is None:
                raise UnknownItem("The photo was put, and this server has no log of changes (CARSEARCH_DELTA_DIR).")
            return photo_path(self.delta_dir, item.sha256)
        return self.gallery_root / os.fsdecode(item.path)


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_K:
        raise InvalidK(f"k must be a whole number from 1 to {MAX_K}.")


def open_index(index: str | Path | IndexDirectory, version: str | None = None, *, runtime: str = "auto") -> Engine:
    """Opens an index directory, by default in its current version; raises as `Engine.load`."""
    directory = index if isinstance(index, IndexDirectory) else IndexDirectory(Path(index))
    return Engine.load(directory, version, runtime=runtime)
