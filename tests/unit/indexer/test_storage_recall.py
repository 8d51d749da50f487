"""An index in a lossy storage: accepted where it finds what fp32 finds, and never rounded twice."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from indexer.benchmark.storage_recall import Recall, measured_recall, refuse_lossy
from indexer.build import build_index, published_embeddings
from indexer.items import ItemTable
from indexer.manifest import EMBEDDINGS_NAME, INDEX_NAME, ITEMS_NAME, MANIFEST_NAME, Manifest
from indexer.stores.faiss import FaissStore
from indexer.stores.precision import Storage
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import IndexInvalid, StorageTooLossy
from model.types import Embeddings
from service.engine import Engine
from tests.support.photos import car_photo
from tests.unit.indexer.sets import assert_clean, content_of, unit, write_photos

TWELVE = [f"{label}/{shot}.jpg" for label in "abc" for shot in range(4)]
lossy_storages = pytest.mark.parametrize("storage", [Storage.fp16, Storage.sq8, Storage.ivf_rabitq])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", TWELVE)


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return IndexDirectory(tmp_path / "index")


def fan(*degrees: float) -> Embeddings:
    """Unit vectors in the plane at some angles."""
    radians = np.deg2rad(degrees)
    return unit(np.stack([np.cos(radians), np.sin(radians)], axis=1))


def test_recall_is_the_share_of_queries_that_find_as_near_a_row_as_fp32() -> None:
    rows = fan(0, 10, 30, 31)  # nearest: 1, 0, 3, 2
    assert measured_recall(rows, FaissStore.create(rows)) == Recall(1.0, 4)
    one_moved = FaissStore.create(fan(0, 90, 30, 31))  # nearest now: 2 instead of 1, 0, 3, 2
    assert measured_recall(rows, one_moved) == Recall(0.75, 4)


def test_a_copy_of_the_nearest_photo_is_as_good() -> None:
    rows = fan(0, 0, 0, 50, 51)
    without_the_lower_copies = FaissStore.create(fan(90, 90, 0, 50, 51))
    assert measured_recall(rows[:1], FaissStore.create(rows[:1])) == Recall(1.0, 0)
    found = without_the_lower_copies.search(rows[:1], 1, exclude_rows=np.array([0])).rows
    assert found.tolist() == [[2]]  # fp32 finds row 1, its copy
    assert measured_recall(rows, without_the_lower_copies).share == 0.8  # row 2 is left out only for itself


def test_queries_are_spread_over_all_rows() -> None:
    rows = fan(*range(90))
    assert measured_recall(rows, FaissStore.create(rows), most=7) == Recall(1.0, 7)
    assert measured_recall(rows, FaissStore.create(rows)).queries == 90


@pytest.mark.parametrize(
    ("storage", "way_out"), [(Storage.fp16, "--storage fp32."), (Storage.sq8, "--storage fp16 or fp32.")]
)
def test_the_least_recall_is_0_999(storage: Storage, way_out: str) -> None:
    refuse_lossy(storage, Recall(0.999, 1000))
    with pytest.raises(StorageTooLossy) as refusal:
        refuse_lossy(storage, Recall(0.998, 1000))
    assert str(refusal.value) == (
        f"Stored in {storage}, 0.99800 of 1000 photos find the nearest photo that fp32 finds, and 0.999 is the least; "
        f"nothing was published: use {way_out}"
    )


@lossy_storages
def test_a_version_says_how_it_is_stored_and_what_that_costs(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, storage: Storage
) -> None:
    result = build_index(photos, index, fake_embedder, storage=storage)
    assert (result.storage, result.recall) == (storage, 1.0)
    manifest = index.verify(result.version)
    lists = {"nlist": 1, "nprobe": 1, "candidates": 100} if storage is Storage.ivf_rabitq else {}
    assert manifest.index_recipe == {**storage.recipe, **lists, "recall_at_1": 1.0, "queries": 12}
    assert (manifest.storage, manifest.recall) == (storage, 1.0)
    assert (index.path_of(result.version) / EMBEDDINGS_NAME).stat().st_size == 12 * 64 * 4
    assert_clean(index)


@lossy_storages
def test_a_rebuild_keeps_the_storage_and_rounds_nothing_twice(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, storage: Storage, tmp_path: Path
) -> None:
    build_index(photos, index, fake_embedder, storage=storage)
    assert not build_index(photos, index, fake_embedder).changed
    for turn in range(3):
        write_photos(photos, [f"d/{turn}.jpg"])
        (photos / TWELVE[turn]).unlink()
        result = build_index(photos, index, fake_embedder)
        assert (result.embedded, result.reused, result.storage) == (1, 11, storage)
    fresh = IndexDirectory(tmp_path / "fresh")
    build_index(photos, fresh, fake_embedder, storage=storage)
    assert content_of(index) == content_of(fresh)


def test_from_a_lossy_storage_back_to_fp32_embeds_nothing_and_loses_nothing(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    build_index(photos, index, fake_embedder, storage=Storage.fp32)
    exact = content_of(index)
    for storage in (Storage.sq8, Storage.ivf_rabitq, Storage.fp16, Storage.fp32):
        result = build_index(photos, index, fake_embedder, storage=storage)
        assert (result.embedded, result.changed, result.storage) == (0, True, storage)
    assert content_of(index) == exact
    assert_clean(index)


def test_by_default_a_gallery_that_is_large_enough_is_kept_in_fp16_where_that_finds_the_same(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = build_index(photos, index, fake_embedder)
    assert (small.storage, index.manifest(small.version).index_recipe["chosen"]) == (Storage.fp32, "auto")
    monkeypatch.setattr("indexer.recipes.MIN_MEASURED", 12)
    assert not build_index(photos, index, fake_embedder).changed  # nothing in the gallery is new
    write_photos(photos, ["d/0.jpg"])
    large = build_index(photos, index, fake_embedder)
    assert (large.storage, large.recall) == (Storage.fp16, 1.0)
    assert index.verify(large.version).index_recipe == {
        **Storage.fp16.recipe, "recall_at_1": 1.0, "queries": 13, "chosen": "auto"
    }  # fmt: skip
    monkeypatch.setattr("indexer.recipes.recall_of", lambda *_: Recall(0.99, 14))
    write_photos(photos, ["d/1.jpg"])
    assert build_index(photos, index, fake_embedder).storage is Storage.fp32
    chosen = build_index(photos, index, fake_embedder, storage=Storage.fp32)
    assert (chosen.changed, chosen.embedded) == (True, 0)
    write_photos(photos, ["d/2.jpg"])
    monkeypatch.setattr("indexer.recipes.recall_of", lambda *_: Recall(1.0, 15))
    assert build_index(photos, index, fake_embedder).storage is Storage.fp32
    assert build_index(photos, index, fake_embedder, storage="auto").storage is Storage.fp16


def test_on_a_gpu_fp32_is_kept_which_alone_it_searches(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.recipes.MIN_MEASURED", 12)
    monkeypatch.setattr("indexer.recipes.gpus", lambda: 1)
    assert build_index(photos, index, fake_embedder).storage is Storage.fp32


def test_embeddings_are_looked_up_as_the_network_gave_them(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    version = build_index(photos, index, fake_embedder, storage=Storage.sq8).version
    table = ItemTable(index.path_of(version) / ITEMS_NAME)
    known = published_embeddings(index, index.manifest(version), fake_embedder.embedding_id)
    for item in table.all():
        vector = known(item.sha256)
        assert vector is not None
        expected = fake_embedder.embed_photo(photos.joinpath(item.path.decode()).read_bytes())
        assert vector.tobytes() == expected.tobytes()
    table.close()


def test_a_storage_that_finds_other_photos_is_refused_and_its_work_is_kept(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.recipes.recall_of", lambda *_: Recall(0.99, 12))
    with pytest.raises(StorageTooLossy, match=r"Stored in sq8, 0\.99000 of 12 photos"):
        build_index(photos, index, fake_embedder, storage=Storage.sq8)
    assert index.versions() == []
    result = build_index(photos, index, fake_embedder)
    assert (result.embedded, result.reused, result.storage, result.recall) == (0, 12, Storage.fp32, None)


def test_vectors_nearer_than_a_step_apart_are_refused_in_eight_bits() -> None:
    crowd = unit(np.array([1.0, *[0.0] * 15]) + np.random.default_rng(0).standard_normal((400, 16)) * 1e-4)
    rows = np.concatenate([crowd, np.eye(16, dtype=np.float32)])
    recall = measured_recall(rows, FaissStore.create(rows, Storage.sq8))
    with pytest.raises(StorageTooLossy):
        refuse_lossy(Storage.sq8, recall)


@lossy_storages
def test_an_engine_serves_a_lossy_index(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, storage: Storage
) -> None:
    build_index(photos, index, fake_embedder, storage=storage)
    engine = Engine.load(index, runtime="fake")
    assert engine.store.storage is storage
    (hit,) = engine.search((photos / "b/2.jpg").read_bytes(), 1, ["b"])
    assert hit.id == "b/2.jpg"
    assert hit.score == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("recipe", [{}, {"kind": "IndexFlatIP"}, Storage.sq8.recipe, {**Storage.fp16.recipe}])
def test_a_manifest_whose_recipe_is_not_that_of_its_files_is_refused(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder, recipe: dict[str, str]
) -> None:
    version = build_index(photos, index, fake_embedder, storage=Storage.fp16).version
    path = index.path_of(version) / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "index_recipe": recipe}))
    with pytest.raises(IndexInvalid, match=r"recipe|incomplete|costs"):
        index.manifest(version)


def test_embeddings_of_another_length_are_not_used(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    manifest: Manifest = index.manifest(build_index(photos, index, fake_embedder, storage=Storage.fp16).version)
    for other in (dataclasses.replace(manifest, count=13), dataclasses.replace(manifest, dim=63)):
        known = published_embeddings(index, other, fake_embedder.embedding_id)
        assert known("0" * 64) is None
    (index.path_of(manifest.id) / EMBEDDINGS_NAME).unlink()
    assert published_embeddings(index, manifest, fake_embedder.embedding_id)("0" * 64) is None
    assert build_index(photos, index, fake_embedder).storage is Storage.fp16


def test_a_damaged_version_is_built_anew_in_its_storage(
    photos: Path, index: IndexDirectory, fake_embedder: Embedder
) -> None:
    version = build_index(photos, index, fake_embedder, storage=Storage.fp16).version
    (index.path_of(version) / INDEX_NAME).write_bytes(b"")
    result = build_index(photos, index, fake_embedder)
    assert (result.embedded, result.storage) == (12, Storage.fp16)
    (photos / "e").mkdir()
    (photos / "e/0.jpg").write_bytes(car_photo(77))
    assert build_index(photos, index, fake_embedder).embedded == 1
