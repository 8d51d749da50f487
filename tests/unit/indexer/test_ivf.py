"""Inverted lists: how many there are and how many are read, and files that are refused before they are believed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.benchmark.storage_recall import Recall
from indexer.recipes import create_store
from indexer.stores.exact import ExactStore
from indexer.stores.ivf import IvfStore, Lists, lists_for
from indexer.stores.originals import Originals
from indexer.stores.precision import Storage
from model.errors import IndexInvalid, StorageTooLossy
from model.types import Embeddings
from tests.unit.indexer.sets import unit

DIM = 32


def made_up(rows: int, spread: float = 0.7) -> Embeddings:
    random = np.random.default_rng(1)
    centres = random.standard_normal((max(1, rows // 40), DIM))
    return unit(centres[random.integers(0, len(centres), rows)] + spread * random.standard_normal((rows, DIM)))


ORIGINALS = Originals(made_up(2_000))
STORE = IvfStore.create(ORIGINALS).with_nprobe(8)
NLIST = STORE.lists.nlist


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "index.faiss"
    STORE.write(path)
    return path


def test_the_number_of_lists_is_the_power_of_two_nearest_to_four_roots() -> None:
    assert [lists_for(count) for count in (200_000, 1_000_000, 10_000_000)] == [2_048, 4_096, 16_384]
    assert [lists_for(count) for count in (1, 7, 12, 100, 2_000)] == [1, 1, 1, 8, 128]


def test_lists_are_read_as_they_were_written(written: Path) -> None:
    read = IvfStore.read(written, ORIGINALS, STORE.lists)
    made, found = (store.search(ORIGINALS.matrix[:50], 10) for store in (STORE, read))
    assert made.rows.tobytes() == found.rows.tobytes()
    again = written.with_name("again")
    read.write(again)
    assert again.read_bytes() == written.read_bytes()


def test_as_many_lists_are_read_as_the_recall_takes_and_the_manifest_is_told() -> None:
    store, recipe = create_store(ORIGINALS, "ivf-rabitq")
    assert isinstance(store, IvfStore)
    assert recipe == {
        "kind": "IndexIVFRaBitQ", "nlist": NLIST, "nprobe": store.lists.nprobe, "candidates": 100,
        "recall_at_1": recipe["recall_at_1"], "queries": 2_000,
    }  # fmt: skip
    assert recipe["recall_at_1"] >= 0.99
    assert 1 < recipe["nprobe"] <= NLIST // 2


def test_vectors_that_half_of_the_lists_do_not_suffice_for_are_refused_and_auto_compares_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_structure = Originals(unit(np.random.default_rng(0).standard_normal((800, DIM))))
    with pytest.raises(StorageTooLossy, match=r"Stored in ivf-rabitq, .* and 0\.99 is the least"):
        create_store(without_structure, "ivf-rabitq")
    monkeypatch.setattr("indexer.recipes.MIN_MEASURED", 800)
    monkeypatch.setattr("indexer.recipes.LISTS_FROM", 799)
    _, recipe = create_store(without_structure, "auto")
    assert recipe["kind"] in ("IndexScalarQuantizer", "IndexFlatIP")
    _, recipe = create_store(ORIGINALS, "auto")
    assert (recipe["kind"], recipe["chosen"]) == ("IndexIVFRaBitQ", "auto")


def test_auto_takes_eight_bits_where_two_versions_in_sixteen_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.recipes.available_bytes", lambda: 2 * 2 * 2_000 * DIM - 1)
    monkeypatch.setattr("indexer.recipes.recall_of", lambda *_: Recall(1.0, 2_000))
    assert create_store(ORIGINALS, "auto")[0].storage is Storage.sq8
    monkeypatch.setattr("indexer.recipes.available_bytes", lambda: 2 * 2 * 2_000 * DIM)
    assert create_store(ORIGINALS, "auto")[0].storage is Storage.fp16


def test_a_graph_finds_the_lists_of_large_galleries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.stores.ivf.HNSW_FROM", 1)
    store, recipe = create_store(ORIGINALS, "ivf-rabitq")
    assert isinstance(store, IvfStore)
    assert recipe["recall_at_1"] >= 0.99
    store.write(tmp_path / "index.faiss")
    read = IvfStore.read(tmp_path / "index.faiss", ORIGINALS, store.lists)
    made, found = (one.search(ORIGINALS.matrix[:50], 10) for one in (store, read))
    assert made.rows.tobytes() == found.rows.tobytes()


@pytest.mark.parametrize(
    "asked", [Lists(NLIST * 2, 8), Lists(NLIST - 1, 8), Lists(1 << 20, 8)], ids=["twice", "one less", "a million"]
)
def test_another_number_of_lists_than_the_manifest_says_is_refused(written: Path, asked: Lists) -> None:
    with pytest.raises(IndexInvalid, match="has not the length"):
        IvfStore.read(written, ORIGINALS, asked)


def test_every_other_length_is_refused(written: Path) -> None:
    whole = written.read_bytes()
    for length in (0, 1, 100, len(whole) - 1):
        written.write_bytes(whole[:length])
        with pytest.raises(IndexInvalid):
            IvfStore.read(written, ORIGINALS, STORE.lists)
    written.write_bytes(whole + b"\0")
    with pytest.raises(IndexInvalid):
        IvfStore.read(written, ORIGINALS, STORE.lists)
    written.unlink()
    with pytest.raises(IndexInvalid, match="cannot be read"):
        IvfStore.read(written, ORIGINALS, STORE.lists)


@pytest.mark.parametrize("value", [-1, 0, 1 << 60, 2_000, -(1 << 63)])
@pytest.mark.parametrize("part", ["centroid", "size", "row"])
def test_forged_numbers_are_refused_or_change_nothing_but_the_order_of_lists(
    written: Path, part: str, value: int
) -> None:
    data = bytearray(written.read_bytes())
    offset = {"centroid": 0, "size": 4 * NLIST * DIM, "row": 4 * NLIST * DIM + 8 * NLIST}[part]
    forged = np.float32("nan").tobytes() if part == "centroid" else np.int64(value).tobytes()
    changed = data[offset : offset + len(forged)] != forged
    data[offset : offset + len(forged)] = forged
    written.write_bytes(data)
    if changed:
        with pytest.raises(IndexInvalid, match="not of 2000 rows"):
            IvfStore.read(written, ORIGINALS, STORE.lists)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_flipped_bit_makes_lists_that_cannot_be_searched(written: Path, data: st.DataObject) -> None:
    STORE.write(written)
    damaged = bytearray(written.read_bytes())
    place = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[place // 8] ^= 1 << place % 8
    written.write_bytes(damaged)
    try:
        store = IvfStore.read(written, ORIGINALS, STORE.lists)
    except IndexInvalid:
        return
    rows = store.search(ORIGINALS.matrix[:20], 5).rows
    assert ((rows >= 0) & (rows < 2_000)).all()


def test_originals_are_mapped_and_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.f32"
    path.write_bytes(ORIGINALS.matrix.data)
    mapped = Originals.read(path, DIM, 2_000)
    assert mapped.at(np.array([[3, 1], [-1, 0]])).tobytes() == ORIGINALS.matrix[[[3, 1], [-1, 0]]].tobytes()
    assert not mapped.matrix.flags.owndata
    assert not mapped.matrix.flags.writeable
    found, wanted = (ExactStore(one).search(ORIGINALS.matrix[:9], 4) for one in (mapped, ORIGINALS))
    assert found.scores.tobytes() == wanted.scores.tobytes()
    with pytest.raises(IndexInvalid, match="another length"):
        Originals.read(path, DIM, 2_001)
