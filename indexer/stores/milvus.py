"""Milvus: a version's vectors in a collection that never changes, searched in another process or on other machines.

A row of the version is an entity whose primary key `id` is the row's number. Milvus finds candidates; their vectors are
read from the collection, and `exact_scores` of these decides.
"""

import functools
import logging
import time
from typing import Any, NamedTuple, Self

import numpy as np

from indexer.stores.candidates import CandidateStore, Scores
from indexer.stores.originals import UNIT_TOLERANCE, Originals
from indexer.stores.precision import Storage
from model.errors import IndexInvalid, StoreUnavailable, missing_dependency
from model.retrieval import score_tolerance
from model.types import Embeddings, Rows

try:
    import grpc
    from pymilvus import DataType, MilvusClient, MilvusException
except ModuleNotFoundError as problem:
    raise missing_dependency(problem) or problem from problem

ID, VECTOR = "id", "vector"
CALL_S, LOAD_S = 4.0, 3600.0
"""How long a short call may take, with those that the client repeats where Milvus is gone; and an insert or a load."""

GONE_S = 2.0
"""How long Milvus is left alone after it was gone."""

NO_SERVER, NOT_THERE = 2, 100
"""Codes of the errors for a server that is gone, and for a name that is no collection and no alias."""

MOST_FETCHED = 16_384
"""Milvus answers with no more; a search that would need more candidates does with these."""

INSERT_BYTES = 16 << 20
"""Vectors in one call; Milvus takes 64 MiB at most."""

SEGMENT_BYTES = 512 << 20
"""Milvus makes the lists of every segment apart; this is how much it puts into one by default."""

ROWS_A_FILTER = 4_000
RUNS_A_FILTER = 16
"""Milvus 2.3 refuses expressions that are nested as deeply as some fifty of `or`."""

LONG_RUN = 8
FEW_FILTERS = 4
CHECKED_ROWS = 100


class Lists(NamedTuple):
    """How many inverted lists Milvus makes of a segment, and how many of them a search reads; 0 for none."""

    nlist: int = 0
    nprobe: int = 0


class Selection(NamedTuple):
    """The rows to search among, int64 (n,), None for all; and expressions, each for some of them."""

    among: Rows | None
    filters: list[tuple[str, int]]
    """An expression and how many rows it leaves."""


class Milvus:
    """A server at an address, as `http://milvus:19530/DATABASE`, or a file of Milvus Lite; safe to use from threads.

    `token` is `user:password` or a key, empty for none. Every call raises StoreUnavailable for whatever Milvus or the
    way to it does not do.
    """

    def __init__(self, address: str, token: str = "") -> None:
        self.address, self._token = address, token
        self._gone_until_s = 0.0
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises

    @functools.cached_property
    def _client(self) -> MilvusClient:
        return MilvusClient(uri=self.address, token=self._token, timeout=CALL_S)

    def call(self, name: str, *arguments: Any, timeout_s: float = CALL_S, **options: Any) -> Any:
        """A method of MilvusClient by its name; where Milvus has just been gone it is not asked."""
        if time.monotonic() < self._gone_until_s:
            raise StoreUnavailable("Milvus does not answer; try again in some seconds.")
        try:
            return getattr(self._client, name)(*arguments, timeout=timeout_s, **options)
        except (MilvusException, grpc.RpcError) as problem:
            code = getattr(problem, "code", None)
            if not isinstance(code, int) or code == NO_SERVER:  # others are what a server tells
                # The client waits for a connection with a lock that all threads want.
                self._gone_until_s = time.monotonic() + GONE_S
            # Clients read this too, so that it tells neither the address nor what Milvus says of itself.
            raise StoreUnavailable(
                f"Milvus has failed at {name}; look whether it runs where CARSEARCH_STORE says, and at the log."
            ) from problem

    def named(self, alias: str) -> str | None:
        """The collection that an alias names; None where there is no such alias."""
        try:
            # Not describe_alias: Milvus 2.3 looks into the default database, whatever the address says.
            return str(self.call("describe_collection", alias)["collection_name"])
        except StoreUnavailable as problem:
            if getattr(problem.__cause__, "code", None) == NOT_THERE:
                return None
            raise

    def point(self, alias: str, collection: str) -> None:
        """Makes an alias name a collection."""
        self.call("create_alias" if self.named(alias) is None else "alter_alias", collection, alias)

    def count(self, collection: str) -> int | None:
        """How many rows a collection has, all that was inserted; None where there is none. Loads it."""
        if not self.call("has_collection", collection):
            return None
        self.call("load_collection", collection, timeout_s=LOAD_S)
        (found,) = self.call(
            "query", collection, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout_s=LOAD_S
        )
        return int(found["count(*)"])

    def drop(self, collection: str) -> None:
        """Drops a collection if there is one, whatever alias names it."""
        if self.call("has_collection", collection):
            self.call("drop_collection", collection, timeout_s=LOAD_S)

    def fill(self, collection: str, originals: Originals, nlist: int) -> None:
        """Makes a collection of unit rows float32 (n, D), with so many inverted lists or none, and loads it."""
        count, dim = originals.matrix.shape
        rows = max(1, INSERT_BYTES // (4 * dim))
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ID, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
        params = MilvusClient.prepare_index_params()
        kind = {"index_type": "IVF_FLAT", "params": {"nlist": nlist}} if nlist else {"index_type": "FLAT"}
        params.add_index(VECTOR, metric_type="IP", **kind)
        self.drop(collection)
        self.call("create_collection", collection, schema=schema, consistency_level="Eventually")
        for start in range(0, count, rows):
            part = originals.matrix[start : start + rows]
            numbered = [{ID: start + place, VECTOR: vector} for place, vector in enumerate(part)]
            self.call("insert", collection, numbered, timeout_s=LOAD_S)
        self.call("flush", collection, timeout_s=LOAD_S)
        self.call("create_index", collection, params, timeout_s=LOAD_S)
        self.call("load_collection", collection, timeout_s=LOAD_S)


class MilvusStore(CandidateStore):
    """Unit rows float32 (count, D) in a collection that is loaded; raises StoreUnavailable where Milvus fails.

    Answers are exact where Milvus compares all rows. Where it reads inverted lists, a search may miss a row as in
    `indexer.stores.ivf`.
    """

    storage = Storage.milvus

    def __init__(self, milvus: Milvus, collection: str, dim: int, count: int, lists: Lists) -> None:
        self.milvus, self.collection = milvus, collection
        self.lists = lists
        self._dim, self._count = dim, count
        self.tolerance = score_tolerance(dim) * (1 + UNIT_TOLERANCE)

    @classmethod
    def create(cls, milvus: Milvus, collection: str, originals: Originals, nlist: int = 0) -> Self:
        """Inserts, indexes and loads unit rows; a search reads all lists."""
        milvus.fill(collection, originals, nlist)
        return cls(milvus, collection, originals.matrix.shape[1], len(originals), Lists(nlist, nlist))

    def check(self, originals: Originals) -> None:
        """Raises IndexInvalid unless the collection has all rows and some of them find themselves."""
        if (found := self.milvus.count(self.collection)) != len(self):
            raise IndexInvalid(f"Milvus holds {found} rows in {self.collection}, and {len(self)} were inserted.")
        rows = np.linspace(0, len(self) - 1, min(CHECKED_ROWS, len(self))).astype(np.int64)
        near = self.search(originals.at(rows), 1).rows[:, 0]
        if not (originals.at(near) == originals.at(rows)).all():  # of copies, the first is found
            raise IndexInvalid(f"Some rows of {self.collection} do not find themselves in Milvus.")

    def with_nprobe(self, nprobe: int) -> "MilvusStore":
        """The same lists, of which a search reads so many."""
        return MilvusStore(self.milvus, self.collection, self.dim, len(self), self.lists._replace(nprobe=nprobe))

    @property
    def dim(self) -> int:
        return self._dim

    def __len__(self) -> int:
        return self._count

    def set_threads(self, threads: int | None) -> None:
        """Milvus has its own threads."""

    def vectors(self, rows: Rows) -> Embeddings:
        """int64 (...) -> float32 (..., D), zeros where a row is -1."""
        asked = np.unique(rows[rows >= 0])
        there = np.zeros((len(asked) + 1, self.dim), np.float32)
        for start in range(0, len(asked), ROWS_A_FILTER):
            part = asked[start : start + ROWS_A_FILTER]
            found = self._call("query", filter=f"{ID} in {part.tolist()}", output_fields=[ID, VECTOR])
            if len(found) != len(part):
                raise StoreUnavailable(f"Milvus has {len(found)} of {len(part)} rows of {self.collection}.")
            there[np.searchsorted(asked, [one[ID] for one in found])] = [one[VECTOR] for one in found]
        return there[np.where(rows >= 0, np.searchsorted(asked, rows), -1)]

    def selection(self, among: Rows | None) -> Selection:
        return Selection(among, [("", len(self))] if among is None else _filters(among))

    def candidates(self, queries: Embeddings, fetch: int, selection: Selection) -> tuple[Scores, Rows]:
        among, filters = selection
        if among is not None and len(filters) > FEW_FILTERS:
            # Of more rows than are wanted, those that pass: most filters that leave many rows leave enough of them.
            for wide in (2 * fetch * len(self) // len(among), MOST_FETCHED):
                most = min(len(self), MOST_FETCHED, wide)
                scores, rows = self._nearest(queries, most, most, "", len(self))
                passing = np.isin(rows, among)
                if (passing.sum(axis=1) >= fetch).all():
                    order = np.argsort(~passing, axis=1, kind="stable")[:, :fetch]
                    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        available = len(self) if among is None else len(among)
        parts = [self._nearest(queries, fetch, min(fetch, left), text, available) for text, left in filters]
        scores, rows = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
        order = np.lexsort((rows, -scores), axis=1)[:, :fetch]
        missing = ((0, 0), (0, fetch - order.shape[1]))  # beyond what Milvus answers with
        return (
            np.pad(np.take_along_axis(scores, order, 1), missing, constant_values=-np.inf),
            np.pad(np.take_along_axis(rows, order, 1), missing, constant_values=-1),
        )

    def _nearest(self, queries: Embeddings, fetch: int, limit: int, text: str, available: int) -> tuple[Scores, Rows]:
        """Scores and rows that pass an expression, both (B, limit); more lists are read where few are `available`."""
        limit = min(limit, MOST_FETCHED)
        scores, rows = np.full((len(queries), limit), -np.inf, np.float32), np.full((len(queries), limit), -1, np.int64)
        lists = self.lists
        nprobe = lists.nlist if fetch >= available else min(lists.nlist, lists.nprobe * len(self) // available)
        params = {"metric_type": "IP", "params": {"nprobe": nprobe} if lists.nlist else {}}
        asked = np.ascontiguousarray(queries, np.float32)
        found = self._call(
            "search",
            data=list(asked),
            limit=limit,
            filter=text,
            search_params=params,
            output_fields=[ID],
            timeout_s=CALL_S + len(asked),
        )
        for place, hits in enumerate(found):
            scores[place, : len(hits)] = [hit["distance"] for hit in hits]
            rows[place, : len(hits)] = [hit[ID] for hit in hits]
        return scores, rows

    def _call(self, name: str, **asked: Any) -> Any:
        return self.milvus.call(name, self.collection, consistency_level="Eventually", **asked)

    def best_of_groups(self, query: Embeddings, groups: Rows, k: int) -> tuple[Rows, Scores]:
        """See `CandidateStore.best_of_groups`: rows of groups that are not found yet are searched until there are k."""
        rows, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        left = np.flatnonzero(groups >= 0)
        while len(rows) < k and len(left):
            near = self.search(query[None], min(len(left), 4 * k), among=left)
            there = near.rows[0][near.rows[0] >= 0]
            _, first = np.unique(groups[there], return_index=True)
            first.sort()
            rows, scores = np.append(rows, there[first]), np.append(scores, near.scores[0][first])
            left = left[~np.isin(groups[left], groups[there])]
        return rows[:k], scores[:k]


def _filters(among: Rows) -> list[tuple[str, int]]:
    """Expressions that together leave some rows, ascending, each with how many it leaves.

    Rows of a class stand one after the other in most galleries, so that a run of them is two numbers.
    """
    runs = np.split(among, np.flatnonzero(np.diff(among) != 1) + 1) if len(among) else []
    long = [run for run in runs if len(run) >= LONG_RUN]
    single = np.concatenate([np.empty(0, np.int64), *(run for run in runs if len(run) < LONG_RUN)])
    found = []
    for start in range(0, len(long), RUNS_A_FILTER):
        part = long[start : start + RUNS_A_FILTER]
        text = " or ".join(f"({ID} >= {run[0]} and {ID} <= {run[-1]})" for run in part)
        found.append((text, sum(map(len, part))))
    for start in range(0, len(single), ROWS_A_FILTER):
        numbers = single[start : start + ROWS_A_FILTER]
        found.append((f"{ID} in {numbers.tolist()}", len(numbers)))
    return found
