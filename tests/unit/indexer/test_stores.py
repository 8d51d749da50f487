"""What holds for every way to store vectors: exact scores, one order, copies together, and filters that find enough."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.stores.candidates import CandidateStore
from indexer.stores.exact import ExactStore
from indexer.stores.faiss import FaissStore
from indexer.stores.ivf import IvfStore
from indexer.stores.originals import Originals
from indexer.stores.precision import Storage
from model.retrieval import exact_scores
from model.types import Embeddings, Rows
from tests.unit.indexer.sets import unit

ROWS, DIM, COPIES = 3_000, 32, 130
QUERIES = slice(100, 140)


def made_up() -> Embeddings:
    """Photos around the centres of their classes, and so many copies of one that no list of candidates holds all."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((60, DIM))
    rows = unit(centres[random.integers(0, 60, ROWS)] + 0.7 * random.standard_normal((ROWS, DIM)))
    rows[random.permutation(ROWS)[:COPIES]] = rows[7]
    return rows


MATRIX = made_up()
EXACT = ExactStore(Originals(MATRIX))
LISTS = IvfStore.create(Originals(MATRIX))
STORES: dict[str, CandidateStore] = {
    "exact": EXACT,
    **{str(storage): FaissStore.create(MATRIX, storage) for storage in (Storage.fp32, Storage.fp16, Storage.sq8)},
    "ivf-rabitq": LISTS.with_nprobe(16),
    "ivf-rabitq, one list": LISTS,
}


@pytest.fixture(
    scope="module",
    params=[
        *STORES,
        pytest.param("milvus_lite", marks=pytest.mark.slow),
        pytest.param("milvus_server", marks=pytest.mark.engines),
    ],
)
def store(request: pytest.FixtureRequest) -> CandidateStore:
    if request.param in STORES:
        return STORES[request.param]
    from indexer.stores.milvus import Milvus, MilvusStore

    address = request.getfixturevalue(request.param)
    return MilvusStore.create(Milvus(address), "carsearch_contract", Originals(MATRIX))


def by_definition(store: CandidateStore, query: Embeddings, k: int, allowed: Rows) -> list[int]:
    scores = exact_scores(query[None], store.vectors(allowed)[None])[0]
    found: list[int] = allowed[np.lexsort((allowed, -scores))[:k]].tolist()
    return found


@pytest.mark.parametrize("k", [1, 10, 300])
def test_scores_are_those_of_the_vectors_bit_for_bit_and_in_one_order(store: CandidateStore, k: int) -> None:
    queries, own = MATRIX[QUERIES], np.arange(ROWS)[QUERIES]
    found = store.search(queries, k, exclude_rows=own)
    assert (found.rows >= 0).all()
    assert not (found.rows == own[:, None]).any()
    assert found.scores.tobytes() == exact_scores(queries, store.vectors(found.rows)).tobytes()
    for rows, scores in zip(found.rows, found.scores, strict=True):
        assert np.lexsort((rows, -scores)).tolist() == list(range(k))


@pytest.mark.parametrize("name", ["sq8", "ivf-rabitq", "ivf-rabitq, one list"])
def test_rescored_scores_are_those_of_exact_search(name: str) -> None:
    found, exact = STORES[name].search(MATRIX[QUERIES], 5), EXACT.search(MATRIX[QUERIES], 5)
    same = found.rows == exact.rows
    assert found.scores[same].tobytes() == exact.scores[same].tobytes()
    assert same[:, 0].all()  # each photo finds itself
    assert STORES[name].vectors(np.arange(ROWS)).tobytes() == MATRIX.tobytes()


def test_copies_of_a_photo_are_found_from_the_lowest_row(store: CandidateStore) -> None:
    copies = np.flatnonzero((MATRIX[7] == MATRIX).all(axis=1))
    assert len(copies) >= COPIES
    for k in (1, 5, COPIES):
        assert store.search(MATRIX[7:8], k).rows[0].tolist() == copies[:k].tolist()


def test_lists_that_are_all_read_with_all_candidates_are_exact_search() -> None:
    whole = IvfStore(LISTS.index, Originals(MATRIX), LISTS.lists._replace(nprobe=LISTS.lists.nlist, candidates=ROWS))
    found, exact = whole.search(MATRIX[QUERIES], 20), EXACT.search(MATRIX[QUERIES], 20)
    assert found.rows.tobytes() == exact.rows.tobytes()
    assert found.scores.tobytes() == exact.scores.tobytes()


@given(
    seed=st.integers(0, 2**32 - 1),
    passing=st.integers(0, ROWS),
    k=st.sampled_from([1, 10, 120]),
    near=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_filter_finds_as_many_as_there_are(
    store: CandidateStore, seed: int, passing: int, k: int, near: bool
) -> None:
    random = np.random.default_rng(seed)
    query = MATRIX[random.integers(0, ROWS)][None]
    # Rows far from the query are those that a search of few lists never meets.
    order = np.argsort(MATRIX @ query[0]) if not near else random.permutation(ROWS)
    among = np.sort(order[:passing])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.stores.ivf.FEW_ROWS", 40)
        if store.storage is Storage.milvus:
            patch.setattr("indexer.stores.milvus.ROWS_A_FILTER", 100)
        (found,) = store.search(query, k, among=among).rows
    wanted = min(k, passing)
    assert (found[:wanted] >= 0).all()
    assert (found[wanted:] == -1).all()
    assert np.isin(found[:wanted], among).all()
    assert len(set(found[:wanted].tolist())) == wanted
    if passing <= 40 or store.storage is Storage.milvus:
        assert found[:wanted].tolist() == by_definition(store, query[0], k, among)


def test_among_rows_in_many_runs_the_nearest_are_found(store: CandidateStore) -> None:
    among = np.flatnonzero(np.arange(ROWS) // 10 % 2)
    for query in MATRIX[100:103]:
        assert store.search(query[None], 10, among=among).rows[0].tolist() == by_definition(store, query, 10, among)


def test_the_best_rows_of_groups_are_exact(store: CandidateStore) -> None:
    groups = np.random.default_rng(5).integers(-1, 50, ROWS)
    for query in MATRIX[QUERIES][:10]:
        rows, scores = store.best_of_groups(query, groups, 8)
        everything = by_definition(store, query, ROWS, np.flatnonzero(groups >= 0))
        best = list(dict.fromkeys(groups[everything].tolist()))[:8]
        assert groups[rows].tolist() == best
        assert rows.tolist() == [next(row for row in everything if groups[row] == group) for group in best]
        assert scores.tobytes() == exact_scores(query[None], store.vectors(rows)[None])[0].tobytes()


def test_searches_of_several_depths_share_lists_without_changing_them() -> None:
    stores = [LISTS.with_nprobe(nprobe) for nprobe in (1, 4, 16, 64)]
    alone = [store.search(MATRIX[QUERIES], 10).rows.tobytes() for store in stores]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda store: store.search(MATRIX[QUERIES], 10).rows.tobytes(), stores * 8))
    assert together == alone * 8


def test_a_query_gives_the_same_bits_alone_and_in_any_batch(store: CandidateStore) -> None:
    together = store.search(MATRIX[QUERIES], 10)
    for place in (0, 13):
        alone = store.search(MATRIX[QUERIES][place : place + 1], 10)
        assert alone.scores[0].tobytes() == together.scores[place].tobytes()
        assert alone.rows[0].tobytes() == together.rows[place].tobytes()
