"""Versions of an index that must not be served, and what makes them, for cases 093 to 110 of the catalogue."""

import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import faiss
import numpy as np

from indexer.items import SCHEMA
from indexer.manifest import INDEX_NAME, ITEMS_NAME, MANIFEST_NAME
from indexer.stores.faiss import FaissStore
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.storage import FileRecord
from model.types import Embeddings
from tests.e2e.catalogue.standing import Standing
from tests.support.calls import eventually, metric
from tests.support.servers import Server
from tests.unit.indexer.sets import unit

REFUSALS = "carsearch_index_refusals_total"
SWAPS = "carsearch_index_swaps_total"
REFUSED = "carsearch_index_refused"
Change = Callable[[Path], None]


@dataclass
class Steady:
    """A server that serves `good`, and its index directory, to be given other versions."""

    standing: Standing
    index: IndexDirectory
    good: str
    _made: int = field(default=0)

    @property
    def server(self) -> Server:
        return self.standing.server

    def copy(self, change: Change, *, told: bool = True) -> str:
        """A copy of the good version that was changed; with `told`, its manifest is then made to say what it is."""
        self._made += 1
        version = f"2099-{self._made:03d}-case"
        directory = self.index.path_of(version)
        shutil.copytree(self.index.path_of(self.good), directory)
        edit(directory, id=version)
        change(directory)
        if told:
            names = [path.name for path in directory.iterdir() if path.name != MANIFEST_NAME]
            edit(directory, files={one: asdict(FileRecord.of(directory / one)) for one in names})
        return version

    def point_at(self, version: str) -> None:
        temporary = self.index.root / "CURRENT.new"
        temporary.write_text(f"{version}\n")
        temporary.replace(self.index.root / CURRENT_NAME)

    def serves(self, version: str) -> bool:
        return serves(self.server, version)

    @contextmanager
    def serving(self, version: str) -> Iterator[None]:
        """Inside, the server serves another version; afterwards the good one, and stands."""
        self.point_at(version)
        eventually(lambda: self.serves(version), f"{version} is served")
        yield
        self.serve_good()
        self.standing.assert_stands()

    def serve_good(self) -> None:
        self.point_at(self.good)
        eventually(lambda: self.serves(self.good), "the good version is served")

    def assert_refused(self, version: str, code: str) -> None:
        """Points at a version, which must be refused with a code while the good one goes on; then points back."""
        self.serve_good()  # where a test before this one failed
        server, refused, swaps = self.server, metric(self.server, REFUSALS), metric(self.server, SWAPS)
        self.point_at(version)
        eventually(
            lambda: metric(server, REFUSALS) == refused + 1, f"{version} is refused; the log: {server.log[-3000:]}"
        )
        told = server.client.get("/info").json()
        assert (told["refused_version"], told["versions"]["index"]) == (version, self.good)
        assert metric(server, REFUSED) == 1
        assert server.client.get("/readyz").status_code == 200
        (line,) = [line for line in server.log.splitlines() if f"refused index version {version}: " in line]
        assert f" {version}: {code}: " in line, line
        assert str(self.index.root) in line
        assert "Traceback" not in server.log
        self.serve_good()
        assert metric(server, SWAPS) == swaps


def serves(server: Server, version: str) -> bool:
    """Whether a server serves a version, and refuses none since."""
    told: dict[str, Any] = server.client.get("/info").json()
    versions = told["versions"] or {}
    return bool(versions.get("index") == version and told["refused_version"] is None)


def edit(directory: Path, **changes: object) -> None:
    """Changes fields of a manifest."""
    manifest = json.loads((directory / MANIFEST_NAME).read_bytes())
    (directory / MANIFEST_NAME).write_text(json.dumps({**manifest, **changes}))


def vectors(rows: object) -> Change:
    """Puts other vectors into a version, as they are."""

    def change(directory: Path) -> None:
        FaissStore.create(np.asarray(rows, np.float32)).write(directory / INDEX_NAME)

    return change


def header(offset: int, layout: str, value: object) -> Change:
    """Edits a field of the index file."""

    def change(directory: Path) -> None:
        data = bytearray((directory / INDEX_NAME).read_bytes())
        struct.pack_into(layout, data, offset, value)
        (directory / INDEX_NAME).write_bytes(data)

    return change


def content(name: str, data: bytes) -> Change:
    """Puts other content into a file."""

    def change(directory: Path) -> None:
        (directory / name).write_bytes(data)

    return change


def sql(*statements: str) -> Change:
    """Edits the item table."""

    def change(directory: Path) -> None:
        with closing(sqlite3.connect(directory / ITEMS_NAME)) as database, database:
            for statement in statements:
                database.execute(statement)

    return change


def rewritten(schema: str) -> Change:
    """Copies the items into a table of another schema, and breaks a rule that it lacks."""
    return sql("ALTER TABLE items RENAME TO old", schema, "INSERT INTO items SELECT * FROM old", "DROP TABLE old")


def in_turn(*changes: Change) -> Change:
    def change(directory: Path) -> None:
        for one in changes:
            one(directory)

    return change


def manifest(**changes: object) -> Change:
    return lambda directory: edit(directory, **changes)


def rows_of(directory: Path) -> Embeddings:
    faiss.set_deserialization_vector_byte_limit(1 << 40)  # whatever was loaded before in this process has set it lower
    index = faiss.read_index(str(directory / INDEX_NAME))
    return index.reconstruct_n(0, index.ntotal)  # type: ignore[no-any-return]  # FAISS has no types


def rescaled(rows: slice, factor: float) -> Change:
    """Multiplies some rows of a version."""

    def change(directory: Path) -> None:
        found = rows_of(directory)
        found[rows] *= factor
        FaissStore.create(found).write(directory / INDEX_NAME)

    return change


def another_metric(directory: Path) -> None:
    """The same rows in an index under another metric, which FAISS itself wrote."""
    index: Any = faiss.IndexFlatL2(512)
    index.add(rows_of(directory))
    faiss.write_index(index, str(directory / INDEX_NAME))


def linked(directory: Path) -> None:
    outside = directory.parent.parent.parent / f"outside-{directory.name}"
    directory.rename(outside)
    directory.symlink_to(outside)


def looped(directory: Path) -> None:
    (directory / INDEX_NAME).unlink()
    (directory / INDEX_NAME).symlink_to(INDEX_NAME)


def a_folder(directory: Path) -> None:
    (directory / MANIFEST_NAME).unlink()
    (directory / MANIFEST_NAME).mkdir()


NOT_UNIQUE = SCHEMA.partition("CREATE INDEX")[0].replace(" UNIQUE", "")
NO_TYPES = "CREATE TABLE items (row INTEGER PRIMARY KEY, id, class, sha256, path, stamp)"
NO_KEY = "CREATE TABLE items (row, id TEXT UNIQUE, class TEXT, sha256 TEXT, path BLOB, stamp BLOB)"


class Bad(NamedTuple):
    """A version that must be refused: the number in the catalogue, what it is, how it is made, the code it gets.

    `told` is whether its manifest says what its files are, as somebody who means it makes it.
    """

    number: str
    what: str
    change: Change
    code: str = "index_invalid"
    told: bool = True


BAD = [
    Bad("094", "a version that is not there", shutil.rmtree, "version_not_found", told=False),
    Bad("095", "an index that is empty", content(INDEX_NAME, b""), told=False),
    Bad("095", "an index of random bytes", content(INDEX_NAME, Random(0).randbytes(50_000)), told=False),
    Bad("095", "a flipped bit", header(20_001, "<B", 7), told=False),
    Bad("095", "an index cut at 4 KiB", lambda folder: os.truncate(folder / INDEX_NAME, 4096), told=False),
    Bad("096", "an empty index and the manifest says so", content(INDEX_NAME, b"")),
    Bad("096", "ntotal of 2^40", header(8, "<q", 1 << 40)),
    Bad("096", "ntotal of 2^60", header(8, "<q", 1 << 60)),
    Bad("096", "ntotal of -1", header(8, "<q", -1)),
    Bad("096", "d = 0", header(4, "<i", 0)),
    Bad("096", "d = 2^20", header(4, "<i", 1 << 20)),
    Bad("096", "d = -1", header(4, "<i", -1)),
    Bad("096", "2^61 values", header(37, "<Q", 1 << 61)),
    Bad("096", "four letters that FAISS does not know", header(0, "4s", b"AAAA")),
    Bad("096", "the four letters of another kind", header(0, "4s", b"IwFl")),
    Bad("096", "a manifest that says 2^40 rows too", in_turn(header(8, "<q", 1 << 40), manifest(count=1 << 40))),
    Bad("096", "a manifest that says d = 0 too", in_turn(header(4, "<i", 0), manifest(dim=0))),
    Bad("096", "a manifest that says -1 rows", manifest(count=-1)),
    Bad("096", "a manifest of 2^100 rows of 2^100", manifest(count=1 << 100, dim=1 << 100)),
    Bad("097", "256 dimensions for a model of 512", in_turn(vectors(unit(np.eye(256))), manifest(dim=256, count=256)),
        "dim_mismatch"),
    Bad("097", "256 dimensions where the manifest says 512", in_turn(vectors(unit(np.eye(256))), manifest(count=128)),
        "dim_mismatch"),
    Bad("098", "another metric in the index", another_metric),
    Bad("098", "another metric in the manifest", manifest(metric="l2")),
    Bad("098", "rows that are twice as long", rescaled(slice(None), 2)),
    Bad("098", "one row that is a little short", rescaled(slice(7, 8), 0.99)),
    Bad("098", "one row of zeros", rescaled(slice(7, 8), 0)),
    Bad("098", "one row of NaN", rescaled(slice(7, 8), np.nan)),
    Bad("099", "a model that is not there", manifest(model_sha256="0" * 64), "model_not_found"),
    Bad("099", "other preprocessing", manifest(preprocessing_sha256="0" * 64), "model_mismatch"),
    Bad("099", "embeddings of another space", manifest(embedding_id="0" * 16), "model_mismatch"),
    Bad("100", "an item too few", sql("DELETE FROM items WHERE row = (SELECT max(row) FROM items)")),
    Bad("100", "an item too many",
        sql("INSERT INTO items SELECT max(row) + 1, 'new', 'new', sha256, path, stamp FROM items")),
    Bad("100", "a gap", sql("UPDATE items SET row = row + 1 WHERE row = (SELECT max(row) FROM items)")),
    Bad("100", "a row before the first", sql("UPDATE items SET row = -1 WHERE row = 0")),
    Bad("100", "an id that stands twice",
        in_turn(rewritten(NOT_UNIQUE), sql("UPDATE items SET id = 'twice' WHERE row < 2"))),
    Bad("100", "a row that stands twice", in_turn(rewritten(NO_KEY), sql("UPDATE items SET row = 2 WHERE row = 1"))),
    Bad("100", "an id of bytes", in_turn(rewritten(NO_TYPES), sql("UPDATE items SET id = x'00ff' WHERE row = 1"))),
    Bad("100", "no table", content(ITEMS_NAME, b"no table")),
    Bad("101", "no manifest", lambda folder: (folder / MANIFEST_NAME).unlink(), told=False),
    Bad("101", "no JSON", content(MANIFEST_NAME, b"\xff{"), told=False),
    Bad("101", "JSON of another kind", content(MANIFEST_NAME, b"[1]"), told=False),
    Bad("101", "JSON that is too deep", content(MANIFEST_NAME, b"[" * 100_000), told=False),
    Bad("101", "a newer schema", manifest(schema_version=2)),
    Bad("101", "sizes that are no numbers", lambda folder: edit(folder, files={
        name: {"bytes": "many", "sha256": 1} for name in (INDEX_NAME, ITEMS_NAME, "skipped.json")}), told=False),
    Bad("103", "a link that leads out of the index directory", linked, told=False),
    Bad("103", "a file that links to itself", looped, told=False),
    Bad("103", "a folder in the place of the manifest", a_folder, told=False),
    Bad("103", "a manifest that nobody may read", lambda folder: (folder / MANIFEST_NAME).chmod(0), told=False),
    Bad("103", "an index that nobody may read", lambda folder: (folder / INDEX_NAME).chmod(0), told=False),
    Bad("103", "a folder that nobody may enter", lambda folder: folder.chmod(0), told=False),
]  # fmt: skip
