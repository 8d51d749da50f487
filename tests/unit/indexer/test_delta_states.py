"""The log of changes against a plain dictionary: whatever happens to index and log, no change is lost or undone."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from indexer.build import build_index
from indexer.delta import DeltaLog, NewPhoto
from indexer.fold import fold_index
from indexer.items import sha256_bytes
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.retrieval import exact_scores
from model.types import Embeddings
from service.engine import Engine
from tests.conftest import write_fake_model
from tests.support.photos import car_photo

FIRST = ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"]
IDS = st.sampled_from([*FIRST, "a/new.jpg", "c/new.jpg", "나/1.jpg"])
LABELS = st.sampled_from(["a", "b", "c", ""])
SHOTS = st.integers(0, 5)
Gallery = dict[str, tuple[str, str]]
"""Id -> class and sha256."""


@cache
def photo(shot: int) -> bytes:
    return car_photo(1 + shot // 3, shot)


@cache
def embedder() -> Embedder:
    return Embedder.load(write_fake_model(Path(tempfile.mkdtemp(prefix="carsearch-fake-"))), "fake")


@cache
def vector(sha256: str) -> Embeddings:
    known = {sha256_bytes(photo(shot)): photo(shot) for shot in range(6)}
    return embedder().embed_photo(known[sha256])


class Changes(RuleBasedStateMachine):
    """What is there is the folder as a version was indexed, and over it all that was put and deleted, ever."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="carsearch-delta-"))
        self.index = IndexDirectory(self.folder / "index")
        self.log = DeltaLog(self.folder / "delta")
        self.changed: dict[str, tuple[str, str] | None] = {}
        self.indexed: dict[str, Gallery] = {}
        self.serving: Engine | None = None
        self.backup: tuple[dict[str, tuple[str, str] | None], dict[str, Gallery]] | None = None

    @initialize()
    def first(self) -> None:
        for shot, name in enumerate(FIRST):
            self.write(name, shot)
        self.rebuild()

    def write(self, name: str, shot: int) -> None:
        path = self.folder / "gallery" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(shot))

    def in_folder(self) -> Gallery:
        root = self.folder / "gallery"
        found = sorted(path for path in root.rglob("*.jpg"))
        return {str(path.relative_to(root)): (path.parent.name, sha256_bytes(path.read_bytes())) for path in found}

    @rule(names=st.lists(IDS, min_size=1, max_size=3), label=LABELS, shot=SHOTS)
    def put(self, names: list[str], label: str, shot: int) -> None:
        sha256 = sha256_bytes(photo(shot))
        new = [NewPhoto(name, label, photo(shot), vector(sha256), {"price": str(shot)}) for name in names]
        self.log.put(new, embedder().embedding_id)
        self.changed |= dict.fromkeys(names, (label, sha256))

    @rule(name=IDS)
    def delete(self, name: str) -> None:
        if len(self.expected().keys() - {name}) > 1:
            self.log.delete(name)
            self.changed[name] = None

    @rule(name=IDS, shot=SHOTS)
    def change_the_folder(self, name: str, shot: int) -> None:
        self.write(name, shot)

    @rule()
    def rebuild(self) -> None:
        result = build_index(self.folder / "gallery", self.index, embedder(), delta=self.log, allow_removals=True)
        self.indexed[result.version] = self.in_folder()

    @rule()
    def rebuild_without_the_log(self) -> None:
        result = build_index(self.folder / "gallery", self.index, embedder(), allow_removals=True)
        self.indexed[result.version] = self.in_folder()

    @rule()
    def fold(self) -> None:
        before = self.index.current()
        result = fold_index(self.index, self.log)
        assert result.embedded == 0
        self.indexed.setdefault(result.version, self.indexed[before])
        left = self.log.changes()
        assert len(left) == len(self.changed) == len({change.id for change in left})
        files = {path.name for path in self.log.photos.iterdir()}
        assert files == {put[1] for put in self.changed.values() if put is not None}

    @rule(number=st.integers(0, 9))
    def roll_back_or_forward(self, number: int) -> None:
        versions = self.index.versions()
        self.index.rollback(versions[number % len(versions)])

    @rule()
    def back_up(self) -> None:
        for name in ("index", "delta"):  # the log last: it may say more than the versions, and never less
            shutil.rmtree(self.folder / f"{name}.backup", ignore_errors=True)
            shutil.copytree(self.folder / name, self.folder / f"{name}.backup")
        self.backup = dict(self.changed), dict(self.indexed)

    @rule(whole=st.booleans())
    def restore(self, whole: bool) -> None:
        """The index alone, or the log with it."""
        if self.backup is None:
            return
        self.log.close()
        for name in ("index", "delta") if whole else ("index",):
            shutil.rmtree(self.folder / name)
            shutil.copytree(self.folder / f"{name}.backup", self.folder / name)
        self.log = DeltaLog(self.folder / "delta")
        self.serving = None
        changed, indexed = self.backup
        self.indexed |= indexed
        if whole:
            self.changed = dict(changed)

    def expected(self) -> Gallery:
        known = {**self.indexed[self.index.current()], **self.changed}
        return {name: one for name, one in known.items() if one is not None}

    @invariant()
    def what_is_served_is_what_there_is(self) -> None:
        if not self.indexed:
            return
        fresh = Engine.load(self.index, runtime="fake", delta_dir=self.log.folder).caught_up(self.log)
        if self.serving is not None and self.serving.manifest.id == fresh.manifest.id:
            self.serving = self.serving.caught_up(self.log)  # as a server that has followed all the time
        else:
            self.serving = fresh
        for engine in (fresh, self.serving):
            self.check(engine)

    def check(self, engine: Engine) -> None:
        expected = self.expected()
        rows, _ = engine.listed()
        names = [engine.name_of(row) for row in rows.tolist()]
        assert len(names) == engine.photos
        assert {name: (label, engine.item(name).sha256) for name, label in names} == expected
        assert sorted(name for name, _ in names) == sorted(expected)
        assert all(sha256_bytes(engine.original(engine.item(name))) == expected[name][1] for name in self.put_names())
        query = vector(sha256_bytes(photo(0)))
        found = engine.nearest(query[None], [engine.query(photo(0), 100)])[0].hits
        vectors = np.stack([vector(sha256) for _, sha256 in expected.values()])
        scores = dict(zip(expected, np.minimum(exact_scores(query[None], vectors[None])[0], 1).tolist(), strict=True))
        assert {hit.id: hit.score for hit in found} == scores
        assert [hit.score for hit in found] == sorted(scores.values(), reverse=True)

    def put_names(self) -> list[str]:
        return [name for name, put in self.changed.items() if put is not None]

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.folder)


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
