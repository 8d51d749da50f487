"""Search over all rows: FAISS finds the candidates, float64 decides, ties go to the lowest row."""

import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from indexer.stores.candidates import EXTRA_CANDIDATES
from indexer.stores.faiss import FaissStore, installed_distributions
from indexer.stores.originals import Originals
from indexer.stores.precision import Storage, storage_of
from model.errors import CarsearchError, DimMismatch, IndexInvalid
from model.retrieval import exact_scores
from model.types import Embeddings, Rows
from tests.unit.indexer.sets import unit

FLAT = [Storage.fp32, Storage.fp16, Storage.sq8]
storages = st.sampled_from(FLAT)
exact_storages = st.sampled_from([Storage.fp32, Storage.fp16])
every_storage = pytest.mark.parametrize("storage", FLAT)
one_file = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def brute_force(matrix: Embeddings, query: Embeddings, k: int, allowed: Rows) -> tuple[list[int], list[float]]:
    """Rows and scores by definition: all scores in float64, sorted by (score descending, row ascending)."""
    scores = exact_scores(query[None], matrix[allowed][None])[0]
    order = np.lexsort((allowed, -scores))[:k]
    padding = k - len(order)
    return [*allowed[order].tolist(), *[-1] * padding], [*scores[order].tolist(), *[-np.inf] * padding]


def crowded_rows(seed: int, count: int, dim: int, distinct: int) -> Embeddings:
    """Unit rows of which many are copies, and some differ from a copy in the last bit of one value only."""
    random = np.random.default_rng(seed)
    matrix = unit(random.standard_normal((distinct, dim)))[random.integers(0, distinct, count)]
    jiggled = random.random(count) < 0.3
    column = random.integers(0, dim)
    matrix[jiggled, column] = np.nextafter(matrix[jiggled, column], np.float32(2))
    return matrix


def some_rows(random: np.random.Generator, count: int, kind: str) -> Rows | None:
    """Rows to search among: all, any of them, or a run as a class of a gallery of class folders is."""
    if kind == "no":
        return None
    if kind == "run":
        return np.arange(*np.sort(random.integers(0, count + 1, 2)))
    return np.sort(random.permutation(count)[: random.integers(0, count + 1)])


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    dim=st.sampled_from([2, 64]),
    distinct=st.integers(1, 60),
    k=st.integers(1, 8),
    storage=storages,
)
@settings(deadline=None, max_examples=60)
def test_the_best_row_of_each_group_is_exact_and_of_equals_the_lowest(
    seed: int, count: int, dim: int, distinct: int, k: int, storage: Storage
) -> None:
    matrix, random = crowded_rows(seed, count, dim, distinct), np.random.default_rng(seed)
    store, groups = FaissStore.create(matrix, storage), random.integers(-1, 6, count)
    stored, query = store.vectors(np.arange(count)), matrix[0]
    rows, scores = store.best_of_groups(query, groups, k)
    best: dict[int, tuple[int, float]] = {}
    for row, score in zip(*brute_force(stored, query, count, np.arange(count)), strict=True):
        if groups[row] >= 0:
            best.setdefault(int(groups[row]), (row, score))
    assert list(zip(rows.tolist(), scores.tolist(), strict=True)) == list(best.values())[:k]


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    dim=st.sampled_from([2, 8, 64]),
    distinct=st.integers(1, 60),
    extra=st.integers(0, 62),
    restricted=st.sampled_from(["no", "scattered", "run"]),
    excluding=st.booleans(),
    storage=exact_storages,
    copies=st.sampled_from([1, 30]),
)
@example(seed=0, count=1, dim=2, distinct=1, extra=3, restricted="no", excluding=True, storage=Storage.fp32, copies=1)
@example(seed=0, count=1, dim=2, distinct=1, extra=3, restricted="run", excluding=True, storage=Storage.fp16, copies=1)
@settings(max_examples=400, deadline=None)
def test_search_is_brute_force_over_the_rows_as_they_are_stored(
    seed: int,
    count: int,
    dim: int,
    distinct: int,
    extra: int,
    restricted: str,
    excluding: bool,
    storage: Storage,
    copies: int,
) -> None:
    store = FaissStore.create(crowded_rows(seed, count, dim, min(distinct, count)), storage)
    matrix = store.vectors(np.arange(count))
    random = np.random.default_rng(seed + 1)
    # One query of many is searched row by row, a great many of 64 dimensions are multiplied as matrices.
    queries = unit(np.concatenate([matrix[random.integers(0, count, 3)], random.standard_normal((2, dim))] * copies))
    k = 1 + extra % (count + 3)
    among = some_rows(random, count, restricted)
    exclude = random.integers(0, count, len(queries)) if excluding else None

    found = store.search(queries, k, among=among, exclude_rows=exclude, threads=2)

    for position, query in enumerate(queries):
        allowed = np.arange(count) if among is None else among
        if exclude is not None:
            allowed = allowed[allowed != exclude[position]]
        rows, scores = brute_force(matrix, query, k, allowed)
        assert found.rows[position].tolist() == rows
        assert found.scores[position].tolist() == scores


@given(seed=st.integers(0, 2**32 - 1), distinct=st.integers(1, 4), k=st.integers(1, 20), storage=exact_storages)
@settings(max_examples=100, deadline=None)
def test_search_widens_while_the_last_score_ties(seed: int, distinct: int, k: int, storage: Storage) -> None:
    matrix = crowded_rows(seed, 500, 64, distinct)
    store = FaissStore.create(matrix, storage)
    found = store.search(matrix[-1:], k)
    rows, scores = brute_force(store.vectors(np.arange(500)), matrix[-1], k, np.arange(500))
    assert found.rows[0].tolist() == rows
    assert found.scores[0].tolist() == scores


def test_a_hundred_copies_of_one_photo_are_found_from_the_lowest_row() -> None:
    matrix = unit([[3.0, 4.0]] * 100)
    store = FaissStore.create(matrix)
    assert store.search(matrix[:1], EXTRA_CANDIDATES + 3).rows.tolist() == [list(range(EXTRA_CANDIDATES + 3))]
    assert store.search(matrix[:1], 2, exclude_rows=np.array([0])).rows.tolist() == [[1, 2]]
    assert store.search(matrix[:1], 2, among=np.array([40, 70, 90])).rows.tolist() == [[40, 70]]


def test_where_fewer_rows_than_k_exist_rows_are_minus_one_and_scores_minus_infinity() -> None:
    matrix = unit([[1.0, 0.0], [0.6, 0.8]])
    store = FaissStore.create(matrix)
    found = store.search(matrix[:1], 4, exclude_rows=np.array([0]))
    assert found.rows.tolist() == [[1, -1, -1, -1]]
    assert found.scores.tolist() == [[pytest.approx(0.6), -np.inf, -np.inf, -np.inf]]
    nothing = store.search(matrix, 2, among=np.array([], np.int64))
    assert nothing.rows.tolist() == [[-1, -1], [-1, -1]]


@given(seed=st.integers(0, 2**32 - 1), place=st.integers(0, 2), storage=storages)
@settings(max_examples=60, deadline=None)
def test_a_query_gives_the_same_bits_alone_and_in_any_batch(seed: int, place: int, storage: Storage) -> None:
    store = FaissStore.create(crowded_rows(seed, 60, 64, 20), storage)
    queries = unit(np.random.default_rng(seed).standard_normal((64, 64)))
    alone = store.search(queries[place : place + 1], 10)
    for batch in (3, 64):
        found = store.search(queries[:batch], 10)
        assert found.rows[place].tobytes() == alone.rows[0].tobytes()
        assert found.scores[place].tobytes() == alone.scores[0].tobytes()


@pytest.mark.parametrize("among", [[1, 0], [0, 0], [-1], [2, 7]])
def test_rows_to_search_among_are_ascending_rows_of_the_store(among: list[int]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        FaissStore.create(np.eye(3, dtype=np.float32)).search(np.eye(3, dtype=np.float32), 1, among=np.array(among))


@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.sampled_from([1, 3, 16, 100, 512]),
    shift=st.sampled_from([0.0, 0.2, 5.0]),
    storage=storages,
)
@settings(max_examples=150, deadline=None)
def test_scores_of_faiss_lie_within_the_tolerance_of_the_exact_ones(
    seed: int, dim: int, shift: float, storage: Storage
) -> None:
    rows = unit(np.random.default_rng(seed).standard_normal((64, dim)) + shift)
    store = FaissStore(FaissStore.create(rows, storage).index, storage)  # without the originals
    raw, found = store.index.search(rows, 64)
    exact = exact_scores(rows, store.vectors(found))
    assert np.abs(raw.astype(np.float64) - exact).max() <= store.tolerance
    rescored = FaissStore.create(rows, storage)
    exact = exact_scores(rows, rescored.vectors(found))
    assert np.abs(raw.astype(np.float64) - exact).max() <= rescored.error


def test_eight_bits_cut_the_range_of_each_dimension_in_255_parts_and_read_their_middles() -> None:
    rows = unit([[0.6, 0.8, 0.0], [0.8, 0.6, 0.0]])
    store = FaissStore(FaissStore.create(rows, Storage.sq8).index, Storage.sq8)
    half = 0.2 / 255 / 2
    expected = [[0.6 + half, 0.8 + half, 0.0], [0.8 + half, 0.6 + half, 0.0]]
    np.testing.assert_allclose(store.vectors(np.arange(2)), expected, atol=1e-7)


def test_half_precision_keeps_eleven_bits() -> None:
    rows = unit([[0.6, 0.8]])
    store = FaissStore.create(rows, Storage.fp16)
    assert store.vectors(np.array([0])).tolist() == [[0.60009765625, 0.7998046875]]
    again = FaissStore.create(store.vectors(np.array([0])), Storage.fp16)
    assert again.vectors(np.array([0])).tolist() == store.vectors(np.array([0])).tolist()


def test_threads_may_search_at_once() -> None:
    matrix = crowded_rows(1, 200, 16, 50)
    store = FaissStore.create(matrix)
    expected = store.search(matrix, 7).rows.tobytes()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: store.search(matrix, 7).rows.tobytes(), range(16)))
    assert set(answers) == {expected}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Three unit rows of four dimensions in a file."""
    return write_three(tmp_path, Storage.fp32)


def write_three(folder: Path, storage: Storage) -> Path:
    path = folder / "index.faiss"
    FaissStore.create(np.eye(4, dtype=np.float32)[:3], storage).write(path)
    return path


def test_what_is_written_is_read(written: Path) -> None:
    store = FaissStore.read(written, 4, 3)
    assert (len(store), store.dim) == (3, 4)
    assert store.vectors(np.array([2, 0])).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]


@every_storage
@pytest.mark.parametrize("count", [1, 2, 300])
def test_every_storage_is_read_as_it_was_written(tmp_path: Path, storage: Storage, count: int) -> None:
    rows = unit(np.random.default_rng(count).standard_normal((count, 48)))
    made = FaissStore.create(rows, storage)
    made.write(tmp_path / "index.faiss")
    originals = Originals(rows) if storage.rescored else None
    read = FaissStore.read(tmp_path / "index.faiss", 48, count, storage, originals)
    assert read.vectors(np.arange(count)).tobytes() == made.vectors(np.arange(count)).tobytes()
    assert read.search(rows, 3).scores.tobytes() == made.search(rows, 3).scores.tobytes()
    np.testing.assert_allclose(read.vectors(np.arange(count)), rows, atol=2e-3)


@pytest.mark.parametrize("said", FLAT)
@pytest.mark.parametrize("is_", FLAT)
def test_another_storage_than_the_manifest_says_is_refused(tmp_path: Path, said: Storage, is_: Storage) -> None:
    path = write_three(tmp_path, is_)
    if said is is_:
        FaissStore.read(path, 4, 3, said)
    else:
        with pytest.raises(IndexInvalid, match=r"not an |FAISS can read"):
            FaissStore.read(path, 4, 3, said)


@pytest.mark.parametrize("storage", Storage)
def test_a_recipe_names_its_storage_and_may_say_more(storage: Storage) -> None:
    assert storage_of({**storage.recipe, "recall_at_1": 1.0}) is storage


@pytest.mark.parametrize(
    "recipe",
    [{}, {"kind": "IndexHNSWFlat"}, {"kind": "IndexFlatIP", "type": "QT_fp16"}, {"kind": "IndexScalarQuantizer"}],
)
def test_an_unknown_recipe_is_refused(recipe: dict[str, str]) -> None:
    with pytest.raises(IndexInvalid, match="does not know"):
        storage_of(recipe)


@pytest.mark.parametrize(
    ("dim", "count", "error"), [(5, 3, DimMismatch), (3, 3, DimMismatch), (4, 2, IndexInvalid), (4, 4, IndexInvalid)]
)
def test_other_numbers_than_the_manifest_says_are_refused(
    written: Path, dim: int, count: int, error: type[IndexInvalid]
) -> None:
    with pytest.raises(error, match="its manifest says"):
        FaissStore.read(written, dim, count)


@pytest.mark.parametrize(
    "foreign",
    [
        lambda: faiss.IndexFlatL2(4),
        lambda: faiss.index_factory(4, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT),
        lambda: faiss.index_factory(4, "HNSW8", faiss.METRIC_INNER_PRODUCT),
        lambda: faiss.index_factory(4, "SQ8", faiss.METRIC_INNER_PRODUCT),
        lambda: faiss.IndexFlat(4, faiss.METRIC_L1),
    ],
    ids=["L2", "IVF", "HNSW", "SQ8", "L1"],
)
def test_other_kinds_of_index_are_refused(tmp_path: Path, foreign: Callable[[], faiss.Index]) -> None:
    rows = unit(np.random.default_rng(0).standard_normal((90, 4)))
    index = foreign()
    index.train(rows)
    index.add(rows)
    faiss.write_index(index, str(tmp_path / "foreign.faiss"))
    with pytest.raises(IndexInvalid, match="not an IndexFlatIP"):
        FaissStore.read(tmp_path / "foreign.faiss", 4, 90)


@pytest.mark.parametrize("length", [0.0, 0.5, 2.0, np.nan, np.inf])
def test_rows_that_are_not_unit_vectors_are_refused(tmp_path: Path, length: float) -> None:
    rows = np.eye(4, dtype=np.float32)
    rows[2, 2] = length
    FaissStore.create(rows).write(tmp_path / "index.faiss")
    with pytest.raises(IndexInvalid, match="not unit vectors"):
        FaissStore.read(tmp_path / "index.faiss", 4, 4)


@given(data=st.binary(max_size=200), keeps_header=st.booleans())
@one_file
def test_random_bytes_are_refused(written: Path, data: bytes, keeps_header: bool) -> None:
    path = written.with_name("random")
    path.write_bytes((written.read_bytes()[:33] if keeps_header else b"") + data)
    for storage in FLAT:
        with pytest.raises(IndexInvalid):
            FaissStore.read(path, 4, 3, storage)


@every_storage
def test_every_truncation_is_refused(tmp_path: Path, storage: Storage) -> None:
    path = write_three(tmp_path, storage)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(IndexInvalid):
            FaissStore.read(path, 4, 3, storage)


@pytest.mark.slow
@pytest.mark.parametrize("storage", [Storage.fp16, Storage.sq8])
def test_no_flipped_bit_makes_a_quantized_index_that_cannot_be_searched(tmp_path: Path, storage: Storage) -> None:
    path = write_three(tmp_path, storage)
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                store = FaissStore.read(path, 4, 3, storage)
            except IndexInvalid:
                refused += 1
            else:  # a field that nobody reads, or another unit vector, which only the file's sha256 tells
                found = store.search(np.eye(4, dtype=np.float32), 1)
                assert found.rows.shape == (4, 1)
                assert set(found.rows.ravel().tolist()) <= {0, 1, 2}
    # Four letters, dimensions, rows; type, dimensions and bytes of the quantizer; length of the codes.
    assert refused >= 8 * (4 + 4 + 8 + 4 + 8 + 8 + 8)


def test_no_flipped_bit_of_the_header_gives_another_index(written: Path) -> None:
    whole = written.read_bytes()
    refused = 0
    for position in range(45):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            written.write_bytes(damaged)
            try:
                store = FaissStore.read(written, 4, 3)
            except IndexInvalid:
                refused += 1
            else:  # FAISS ignores some fields
                assert store.vectors(np.arange(3)).tolist() == np.eye(4)[:3].tolist()
    assert refused >= 8 * (4 + 4 + 8 + 8)  # four letters, dimensions, rows, values


@pytest.mark.parametrize(
    ("offset", "field", "value"),
    [(4, "<i", 0), (4, "<i", -1), (4, "<i", 1 << 20), (8, "<q", 1 << 60), (8, "<q", -1), (37, "<Q", 1 << 61)],
)
def test_a_forged_header_is_refused(written: Path, offset: int, field: str, value: int) -> None:
    data = bytearray(written.read_bytes())
    struct.pack_into(field, data, offset, value)
    written.write_bytes(data)
    with pytest.raises(IndexInvalid):
        FaissStore.read(written, 4, 3)


def test_a_header_that_claims_terabytes_in_every_field_is_refused(written: Path) -> None:
    data = bytearray(written.read_bytes())
    struct.pack_into("<q", data, 8, 1 << 40)
    struct.pack_into("<Q", data, 37, 4 << 40)
    written.write_bytes(data)
    with pytest.raises(IndexInvalid):
        FaissStore.read(written, 4, 3)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexInvalid):
        FaissStore.read(tmp_path / "absent", 4, 3)


def test_two_packages_named_faiss_are_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(installed_distributions()) == 1
    monkeypatch.setattr("indexer.stores.faiss.installed_distributions", lambda: ["faiss-cpu", "faiss-gpu-cuvs"])
    with pytest.raises(CarsearchError) as refusal:
        FaissStore.create(np.eye(2, dtype=np.float32))
    assert str(refusal.value) == ("Both faiss-cpu and faiss-gpu-cuvs are installed; keep one: pip uninstall faiss-cpu.")


def test_an_index_larger_than_a_few_pages_is_read_back(tmp_path: Path) -> None:
    rows = unit(np.random.default_rng(0).standard_normal((3_000, 128)))
    FaissStore.create(rows).write(tmp_path / "index.faiss")
    store = FaissStore.read(tmp_path / "index.faiss", 128, 3_000)
    np.testing.assert_array_equal(store.vectors(np.arange(3_000)), rows)
