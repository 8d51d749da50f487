"""The checkpoint of a build: embeddings that survive a kill, by the content of the photo."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from indexer.embed import EmbeddedBatch, Lookup, Unchanged, embed_photos
from indexer.items import GalleryItem
from model.dataset import Photo
from model.embedder import Embedder, Progress
from model.errors import IndexInvalid
from model.types import Embeddings

PHOTOS_PER_SAVE = 32
"""Photos per transaction of the checkpoint. Each waits for the disk; a kill loses at most this many and a batch."""


class Checkpoint:
    """`work/<recipe>/embeddings.sqlite`: photo sha256 -> embedding float32 (D,), durable after each `add`."""

    def __init__(self, directory: Path, dim: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._dim = dim
        self._lock = threading.Lock()
        self._path = directory / "embeddings.sqlite"
        with self._errors():
            try:
                self._database = self._open()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # damaged: the embeddings are computed again
                self._path.unlink()
                self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        # The index's lock keeps others out; SQLite's own is one that some file systems lack.
        uri = f"{self._path.resolve().as_uri()}?nolock=1"
        database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("CREATE TABLE IF NOT EXISTS done (sha256 TEXT PRIMARY KEY, embedding BLOB NOT NULL)")
            database.execute("SELECT count(sha256) FROM done").fetchone()  # raises where its index is damaged
            return database
        except sqlite3.Error:
            database.close()
            raise

    def get(self, sha256: str) -> Embeddings | None:
        """float32 (D,), or None when the photo is not done."""
        with self._errors():
            row = self._database.execute("SELECT embedding FROM done WHERE sha256 = ?", (sha256,)).fetchone()
        if row is None or len(row[0]) != 4 * self._dim:
            return None
        return np.frombuffer(row[0], np.float32)

    def add(self, embeddings: Mapping[str, Embeddings]) -> None:
        """Makes some embeddings durable: all of them or none."""
        rows = [(sha256, vector.astype(np.float32).tobytes()) for sha256, vector in embeddings.items()]
        with self._errors(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO done VALUES (?, ?)", rows)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Holds the lock; turns errors of SQLite into IndexInvalid."""
        try:
            with self._lock:
                yield
        except sqlite3.Error as problem:
            raise IndexInvalid(f"The unfinished work in {self._path} cannot be used: {problem}.") from problem


def embed_resumably(
    photos: Sequence[Photo],
    embedder: Embedder,
    known: Lookup,
    before: Iterable[GalleryItem],
    unchanged: Unchanged,
    work: Path,
    progress: Progress,
) -> Iterator[EmbeddedBatch]:
    """The `EmbeddingEngine` of this process, which finds what an interrupted build has embedded by its content."""
    del before  # `known` has their embeddings
    unsaved: dict[str, Embeddings] = {}
    done = 0
    with closing(Checkpoint(work, embedder.dim)) as checkpoint:

        def known_or_done(sha256: str) -> Embeddings | None:
            for lookup in (known, unsaved.get, checkpoint.get):
                if (vector := lookup(sha256)) is not None:
                    return vector
            return None

        for batch in embed_photos(photos, embedder, known_or_done, learning=True, unchanged=unchanged):
            unsaved |= batch.fresh
            if len(unsaved) >= PHOTOS_PER_SAVE:
                checkpoint.add(unsaved)
                unsaved = {}
            yield batch
            done += batch.photos
            progress(done, len(photos))
        checkpoint.add(unsaved)
