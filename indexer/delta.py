"""The log of photos that were put and deleted since a gallery was indexed, one for all versions of an index.

    <folder>/delta.sqlite      the changes by their sequence, and embeddings by content and model
    <folder>/photos/<sha256>   the photos that were put

A manifest names the last sequence that its version holds; what a server shows is that version and every later change.
The last change of each id stays for good: it is where the photo is kept, and what an older version or a rebuild of the
folder must not bring back. Earlier changes of the id are needed by nobody and go with the next `prune`.
"""

import json
import os
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.items import sha256_bytes
from model.dataset import NO_METADATA, read_file
from model.errors import DeltaUnusable, FileUnreadable
from model.storage import fsync_directory, make_directory, naming
from model.types import Embeddings

LOG_NAME = "delta.sqlite"
WAIT_S = 10
"""How long a write waits for another process to end its own."""

LEFTOVER_S = 3600
"""After this time a photo without its name belongs to a process that was killed."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS changes (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    class TEXT,                 -- NULL for a photo without a class
    metadata TEXT NOT NULL,     -- JSON, column -> cell as text
    sha256 TEXT                 -- NULL where the id was deleted
);
CREATE INDEX IF NOT EXISTS changes_by_id ON changes (id, sequence);
CREATE TABLE IF NOT EXISTS embeddings (
    sha256 TEXT NOT NULL,
    embedding_id TEXT NOT NULL,
    embedding BLOB NOT NULL,    -- float32
    PRIMARY KEY (sha256, embedding_id)
) WITHOUT ROWID;
"""
LAST = "SELECT max(sequence) FROM changes GROUP BY id"


@dataclass(frozen=True, slots=True)
class NewPhoto:
    """A photo to be put under an id: its class, empty for none, its cells as text, its bytes, its embedding (D,)."""

    id: str
    label: str
    photo: bytes
    embedding: Embeddings
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """A photo that was put under an id, in the place of any before; `sha256` is None where the id was deleted."""

    sequence: int
    id: str
    label: str
    metadata: Mapping[str, str]
    sha256: str | None


@dataclass(frozen=True, slots=True)
class KnownPhoto:
    """A photo of a new version whose content is known: one of the log, or of the version before at its `path`."""

    id: str
    label: str
    sha256: str
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA, hash=False)
    path: bytes = b""
    file: Path = Path()

    def read(self) -> bytes:
        """Its bytes; raises FileUnreadable, also where they are others by now."""
        data = read_file(self.file)
        if sha256_bytes(data) != self.sha256:
            raise FileUnreadable("The photo that was put is damaged.")
        return data


class DeltaLog:
    """The log in a folder, which is made where it is missing. Safe from several threads and processes of one host.

    Methods raise DeltaUnusable where SQLite cannot read or write, and OSError where a photo cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = folder / "photos"
        make_directory(self.photos)
        self._locks = {name: threading.Lock() for name in ("read", "write")}
        self._seen = 0
        with _sqlite_errors(folder):
            self._reader, self._writer = self._connected(), self._connected()

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.folder / LOG_NAME, WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before it is acknowledged
            database.executescript(SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        weakref.finalize(self, database.close)
        return database

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def put(self, photos: Sequence[NewPhoto], embedding_id: str) -> None:
        """Puts some photos, embedded in one space; they are durable when this returns: all of them or none."""
        waiting: dict[str, Path] = {}
        try:
            for one in photos:
                sha256 = sha256_bytes(one.photo)
                if sha256 not in waiting:
                    waiting[sha256] = self._write(one.photo)
            with self._writing() as (database, sequence):
                # Under the lock, so that no `prune` takes the file before its row is there.
                for sha256, temporary in waiting.items():
                    temporary.replace(self.photo_path(sha256))
                fsync_directory(self.photos)
                for number, one in enumerate(photos, sequence):
                    sha256, cells = sha256_bytes(one.photo), json.dumps(dict(one.metadata), ensure_ascii=False)
                    _add_embedding(database, sha256, embedding_id, one.embedding)
                    row = (number, one.id, one.label or None, cells, sha256)
                    database.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", row)
        finally:
            for temporary in waiting.values():
                temporary.unlink(missing_ok=True)

    def delete(self, identity: str) -> None:
        """Deletes what has an id, wherever it came from; that is durable when this returns."""
        with self._writing() as (database, sequence):
            database.execute("INSERT INTO changes VALUES (?, ?, NULL, '{}', NULL)", (sequence, identity))

    def has_changed(self) -> bool:
        """Tells if a process wrote to the log after the previous call; the first call returns True."""
        with self._reading() as database:
            version = int(database.execute("PRAGMA data_version").fetchone()[0])
        before, self._seen = self._seen, version
        return version != before

    def changes(self, after: int = 0) -> list[Change]:
        """The changes after a sequence, in their order, with those of ids that were changed again."""
        return self._select("WHERE sequence > ? ORDER BY sequence", after)

    def last_of_each(self, after: int = 0) -> list[Change]:
        """The last change of each id, as far as it is after a sequence, in their order."""
        return self._select(f"WHERE sequence > ? AND sequence IN ({LAST}) ORDER BY sequence", after)

    def photos_put(self, changes: Sequence[Change]) -> list[KnownPhoto]:
        """Those of some changes that put a photo, to be indexed."""
        return [
            KnownPhoto(one.id, one.label, one.sha256, one.metadata, file=self.photo_path(one.sha256))
            for one in changes
            if one.sha256 is not None
        ]

    def _select(self, condition: str, after: int) -> list[Change]:
        query = f"SELECT sequence, id, coalesce(class, ''), metadata, sha256 FROM changes {condition}"  # noqa: S608  # SQL of constants; values are bound
        with self._reading() as database:
            found = database.execute(query, [after]).fetchall()
        return [Change(number, name, label, json.loads(cells), sha256) for number, name, label, cells, sha256 in found]

    def embedding(self, sha256: str, fits: Callable[[str], bool]) -> Embeddings | None:
        """The embedding float32 (D,) of a photo in a space whose id `fits`; None where there is none."""
        with self._reading() as database:
            query = "SELECT embedding_id, embedding FROM embeddings WHERE sha256 = ? ORDER BY embedding_id"
            found = database.execute(query, [sha256]).fetchall()
        return next((np.frombuffer(vector, "<f4") for name, vector in found if fits(name)), None)

    def add_embedding(self, sha256: str, embedding_id: str, embedding: Embeddings) -> None:
        """Keeps what another model made of a photo."""
        with self._writing() as (database, _):
            _add_embedding(database, sha256, embedding_id, embedding)

    def photo_path(self, sha256: str) -> Path:
        """Where a photo that was put lies."""
        return photo_path(self.folder, sha256)

    def read(self, sha256: str) -> bytes:
        """A photo that was put; raises FileUnreadable."""
        return read_file(self.photo_path(sha256))

    def prune(self) -> None:
        """Removes what nobody needs: changes of ids that were changed again, and photos of no change that is left."""
        with self._writing() as (database, _):
            database.execute(f"DELETE FROM changes WHERE sequence NOT IN ({LAST})")  # noqa: S608  # SQL of constants; values are bound
            kept = "SELECT sha256 FROM changes WHERE sha256 IS NOT NULL"
            database.execute(f"DELETE FROM embeddings WHERE sha256 NOT IN ({kept})")  # noqa: S608  # SQL of constants; values are bound
            names = {sha256 for (sha256,) in database.execute(kept)}
            for path in self.photos.iterdir():
                leftover = path.name.startswith(".") and time.time() - path.stat().st_mtime > LEFTOVER_S
                if leftover or (path.name not in names and not path.name.startswith(".")):
                    path.unlink(missing_ok=True)

    def _write(self, photo: bytes) -> Path:
        """Writes a photo under a name of its own, durably."""
        temporary = self.photos / f".{uuid.uuid4().hex}"
        try:
            with naming(temporary), temporary.open("wb") as file:
                file.write(photo)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)  # on a full disk, half a file would keep it full
            raise
        return temporary

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._locks["read"], _sqlite_errors(self.folder):
            yield self._reader

    @contextmanager
    def _writing(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """A transaction, and the first sequence that is free; commits at its end.

        Sequences are microseconds since 1970, so that after a restore none is given twice.
        """
        with self._locks["write"], _sqlite_errors(self.folder):
            database = self._writer
            database.execute("BEGIN IMMEDIATE")
            try:
                (last,) = database.execute("SELECT coalesce(max(sequence), 0) FROM changes").fetchone()
                yield database, max(last + 1, time.time_ns() // 1000)
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise


def photo_path(folder: Path, sha256: str) -> Path:
    """Where the log in a folder has a photo."""
    return folder / "photos" / sha256


def _add_embedding(database: sqlite3.Connection, sha256: str, embedding_id: str, embedding: Embeddings) -> None:
    row = (sha256, embedding_id, embedding.astype("<f4", copy=False).tobytes())
    database.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", row)


@contextmanager
def _sqlite_errors(folder: Path) -> Iterator[None]:
    """Turns errors of SQLite into DeltaUnusable."""
    try:
        yield
    except sqlite3.Error as problem:
        raise DeltaUnusable(f"The log of changes in {folder} cannot be used: {problem}.") from problem
