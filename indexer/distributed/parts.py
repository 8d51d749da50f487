"""What a cluster has embedded: Parquet files on the disk of the machine that builds, each whole or not there."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.embed import Embedded, EmbeddedBatch, Lookup
from model.dataset import Photo, Skipped
from model.errors import IndexInvalid
from model.storage import make_directory, naming, write_durably
from model.types import Embeddings

PHOTOS_PER_BATCH = 1024


def schema_of(dim: int) -> pa.Schema:
    """The columns of a part.

    A photo that is skipped has `code` and `message`, and neither `sha256` nor `vector`. A photo whose content the
    version before has is `known`, and has no `vector`. The `stamp` tells if a photo has changed since; `file` is
    that of `indexer.stamps`.
    """
    texts = [(name, pa.string()) for name in ("id", "stamp", "sha256", "code", "message")]
    return pa.schema([*texts, ("known", pa.bool_()), ("file", pa.binary()), ("vector", pa.list_(pa.float32(), dim))])


def table_of(batches: Iterable[EmbeddedBatch], stamps: dict[str, str], dim: int) -> pa.Table:
    """A part of some photos, with stamps by id; an embedding without values is that of a known photo."""
    rows: list[dict[str, object]] = []
    for batch in batches:
        for one in batch.embedded:
            known = not one.embedding.size
            vector = None if known else one.embedding
            rows.append({"id": one.photo.id, "sha256": one.sha256, "known": known, "vector": vector, "file": one.stamp})
        rows += [{"id": one.name, "code": one.code, "message": one.message, "known": False} for one in batch.skipped]
    for row in rows:
        row["stamp"] = stamps[str(row["id"])]
    return pa.Table.from_pylist(rows, schema_of(dim))


class Parts:
    """The parts in a folder, in the order in which they were added: of an id that occurs twice the last row counts."""

    def __init__(self, folder: Path, dim: int) -> None:
        make_directory(folder)
        self._folder, self._dim = folder, dim
        self._paths = sorted(folder.glob("*.parquet"))
        self._earlier = frozenset(self._paths)

    def add(self, table: pa.Table) -> None:
        """Makes a part durable."""
        path = self._folder / f"{len(self._paths):08d}.parquet"
        content = io.BytesIO()
        pq.write_table(table, content, compression="none")  # vectors hardly get smaller
        write_durably(path, content.getvalue())
        self._paths.append(path)

    def stamps(self, known: Lookup) -> dict[str, str | None]:
        """Id -> stamp of the photos that are done; None where `known` has a vector no longer."""
        found: dict[str, str | None] = {}
        for path in self._paths:
            for row in pq.read_table(path, columns=["id", "stamp", "sha256", "known"]).to_pylist():
                lacks = row["known"] and known(row["sha256"]) is None
                found[row["id"]] = None if lacks else row["stamp"]
        return found

    def batches(self, photos: Sequence[Photo], known: Lookup) -> Iterator[EmbeddedBatch]:
        """All photos in order; raises IndexInvalid where one is in no part.

        Their vectors are put into that order in a file, and few of them are in memory at a time.
        """
        ordered = self._folder / "ordered.f32"
        contents, fresh = np.zeros(len(photos), "S64"), np.zeros(len(photos), bool)
        skipped: dict[int, Skipped] = {}
        files: dict[int, bytes | None] = {}
        with (
            naming(ordered),
            ordered.open("wb") as file,
        ):  # written through a mapping, a full disk would end the process
            file.truncate(4 * self._dim * len(photos))
            for path, number, row, vector in self._rows_of(photos):
                skipped.pop(number, None)
                contents[number], fresh[number] = b"", vector is not None and path not in self._earlier
                if row["code"] is not None:
                    skipped[number] = Skipped(row["id"], row["code"], row["message"])
                elif vector is not None or (vector := known(row["sha256"])) is not None:
                    contents[number], files[number] = row["sha256"], row["file"]
                    file.seek(4 * self._dim * number)
                    file.write(vector.astype("<f4", copy=False).tobytes())
        vectors = np.memmap(ordered, "<f4", "r", shape=(len(photos), self._dim))
        for start in range(0, len(photos), PHOTOS_PER_BATCH):
            here = range(start, min(start + PHOTOS_PER_BATCH, len(photos)))
            used = [number for number in here if number not in skipped]
            if not all(contents[number] for number in used):
                raise IndexInvalid("The work of the cluster is incomplete; run the same command again.")
            embedded = [Embedded(photos[one], contents[one].decode(), vectors[one], stamp=files[one]) for one in used]
            new = {one.sha256: one.embedding for number, one in zip(used, embedded, strict=True) if fresh[number]}
            yield EmbeddedBatch(embedded, [skipped[number] for number in here if number in skipped], new)

    def _rows_of(self, photos: Sequence[Photo]) -> Iterator[tuple[Path, int, dict[str, Any], Embeddings | None]]:
        """The rows of some photos: the part, the number of the photo, the row, its vector float32 (D,) or None."""
        numbers = {photo.id: number for number, photo in enumerate(photos)}
        for path in self._paths:
            table = pq.read_table(path)
            vectors = iter(
                table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self._dim)
            )  # without nulls
            for row in table.drop_columns("vector").to_pylist():
                vector = None if row["known"] or row["code"] is not None else next(vectors)
                if row["id"] in numbers:
                    yield path, numbers[row["id"]], row, vector
