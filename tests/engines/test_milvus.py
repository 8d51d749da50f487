"""An index whose vectors are in Milvus: answers, versions, switches, crashes, and a gallery that changes meanwhile."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from indexer.build import BuildResult, build_index
from indexer.delta import DeltaLog, NewPhoto
from indexer.fold import fold_index
from indexer.stores.precision import Storage
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from model.errors import IndexInvalid, StoreUnavailable, VersionInUse
from service.directory import open_directory
from service.engine import Engine
from tests.support.app import AppClient, fake_settings, running_app
from tests.support.calls import assert_problem, eventually
from tests.support.milvus import MilvusServer
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import run_cli

pytestmark = pytest.mark.timeout(900)  # a server starts in a minute, and takes seconds for each version

NUMBERS = itertools.count()
CLASSES, PHOTOS = 12, 6
ADMIN = "admin-0123456789abc"
KEY = {"X-Api-Key": ADMIN}


def database_of(server: MilvusServer) -> str:
    """The address of a new database."""
    from indexer.stores.milvus import Milvus

    name = f"test_{next(NUMBERS)}"
    Milvus(server.address).call("create_database", name)
    return f"{server.address}/{name}"


@pytest.fixture(
    params=[pytest.param("lite", marks=pytest.mark.slow), pytest.param("server", marks=pytest.mark.engines)]
)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A Milvus without anything in it."""
    if request.param == "lite":
        return str(tmp_path / "milvus.db")
    return database_of(request.getfixturevalue("milvus"))


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with classes and prices."""
    root = write_gallery(tmp_path_factory.mktemp("priced") / "gallery", CLASSES, PHOTOS, first_kind=1)
    rows = [f"car {kind}/{shot}.jpg,{100 * kind + shot}" for kind in range(1, CLASSES + 1) for shot in range(PHOTOS)]
    (root / "photos.csv").write_text("\n".join(["path,price", *rows]) + "\n")
    return root


def directory(root: Path, address: str) -> IndexDirectory:
    return open_directory(root, fake_settings(root, store=address, store_token_file=None))


def collections(index: IndexDirectory) -> set[str]:
    return set(index.milvus.call("list_collections"))  # type: ignore[attr-defined]  # a MilvusDirectory


def asked(engine: Engine, **query: Any) -> list[tuple[Any, ...]]:
    """What some photos find, to the last bit."""
    found = []
    for kind in range(1, CLASSES + 3):
        rows = engine.rows(query.get("classes", ()), query.get("where"))
        photo = car_photo(kind, 9)
        answer = engine.answer(engine.query(photo, query.get("k", 5), rows, by_class=query.get("by_class", False)))
        found.append((*((hit.id, hit.label, hit.score) for hit in answer.found.hits), answer.found.decision))
    return found


def test_answers_are_those_of_exact_search(address: str, priced: Path, tmp_path: Path, fake_embedder: Embedder) -> None:
    exact, index = IndexDirectory(tmp_path / "exact"), directory(tmp_path / "index", address)
    build_index(priced, exact, fake_embedder, storage="fp32")
    assert build_index(priced, index, fake_embedder).recall == 1
    ours, theirs = Engine.load(index, runtime="fake"), Engine.load(exact, runtime="fake")
    for query in (
        {"k": 1},
        {"k": 50},
        {"k": 100, "classes": ["car 3", "car 7"]},
        {"where": "price >= 300 and price < 903"},
        {"k": 10, "classes": ["car 5"], "where": "price = 502"},
        {"where": "price > 5000"},
        {"k": 9, "by_class": True},
        {"k": 3, "by_class": True, "where": "price < 700"},
    ):
        assert asked(ours, **query) == asked(theirs, **query), query
    like = [engine.answer(engine.query_like("car 4/2.jpg", 7)).found.hits for engine in (ours, theirs)]
    assert like[0] == like[1]


def test_a_version_is_a_collection_and_the_alias_is_current(
    address: str, tmp_path: Path, fake_embedder: Embedder
) -> None:
    index = directory(tmp_path / "index", address)
    published = [publish(index, tmp_path, fake_embedder, classes) for classes in (1, 2, 3, 4)]
    versions = index.versions()
    assert versions == [one.version for one in published[1:]]  # three are kept
    assert len(collections(index)) == 3
    assert index.current() == published[-1].version
    assert index.rollback() == versions[-2] == index.current()
    index.remove(versions[-1])
    assert len(collections(index)) == 2
    with pytest.raises(VersionInUse):
        index.remove_directory(index.path_of(index.current()))
    again = publish(index, tmp_path, fake_embedder, 2)
    assert index.current() == again.version


def publish(index: IndexDirectory, folder: Path, embedder: Embedder, classes: int) -> BuildResult:
    """Publishes a gallery of so many classes of four photos."""
    gallery = folder / f"gallery {classes}"
    if not gallery.exists():
        write_gallery(gallery, classes, first_kind=1)
    return build_index(gallery, index, embedder, allow_removals=True)


def test_a_publication_that_fails_leaves_the_alias_and_no_collection(
    address: str, tmp_path: Path, fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = directory(tmp_path / "index", address)
    before = publish(index, tmp_path, fake_embedder, 2)
    from indexer.stores.milvus import MilvusStore

    def one_row_less(*_: object) -> None:
        raise IndexInvalid("Milvus holds 11 rows, and 12 were inserted.")

    monkeypatch.setattr(MilvusStore, "check", one_row_less)
    with pytest.raises(IndexInvalid, match="11 rows"):
        publish(index, tmp_path, fake_embedder, 3)
    assert index.current() == before.version
    assert index.versions() == [before.version]
    assert len(collections(index)) == 1


def test_an_index_moves_into_milvus_and_is_made_again_where_milvus_has_lost_it(
    address: str, tmp_path: Path, fake_embedder: Embedder
) -> None:
    files = IndexDirectory(tmp_path / "index")
    publish(files, tmp_path, fake_embedder, 3)
    index = directory(files.root, address)
    assert index.current() == files.current()  # served from files until there is something in Milvus
    expected = asked(Engine.load(index, runtime="fake"))
    moved = publish(index, tmp_path, fake_embedder, 3)
    assert (moved.changed, moved.embedded, moved.reused) == (True, 0, 12)
    assert asked(Engine.load(index, runtime="fake")) == expected
    assert publish(index, tmp_path, fake_embedder, 3).changed is False
    index.milvus.call("drop_alias", "carsearch")  # type: ignore[attr-defined]  # a MilvusDirectory
    for name in collections(index):
        index.milvus.drop(name)  # type: ignore[attr-defined]  # a MilvusDirectory
    with pytest.raises(IndexInvalid, match="has no rows of version"):
        Engine.load(index, runtime="fake")
    with pytest.raises(IndexInvalid, match="in Milvus: set CARSEARCH_STORE"):
        Engine.load(files, runtime="fake")
    assert index.rollback(moved.version) == moved.version
    assert asked(Engine.load(index, runtime="fake")) == expected


def searched(client: AppClient, kind: int) -> tuple[str, list[str]]:
    """The version that answered, and what it found."""
    answer = client.post("/search", params={"k": 100}, files={"file": car_photo(kind, 9)}, headers=KEY)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found["versions"]["index"], [hit["id"] for hit in found["results"]]


def test_a_switch_under_load_loses_and_mixes_nothing(address: str, tmp_path: Path, fake_embedder: Embedder) -> None:
    index, exact = directory(tmp_path / "index", address), IndexDirectory(tmp_path / "exact")
    kinds = (1, 2, 3)
    expected: dict[str, dict[int, list[str]]] = {}
    ended = threading.Event()

    def published(classes: int) -> None:
        publish(exact, tmp_path, fake_embedder, classes)
        engine = Engine.load(exact, runtime="fake")
        hits = {kind: [hit.id for hit in engine.search(car_photo(kind, 9), 100)] for kind in kinds}
        expected[publish(index, tmp_path, fake_embedder, classes).version] = hits

    def load(client: AppClient) -> list[tuple[int, str, list[str]]]:
        seen = []
        while not ended.is_set():
            seen += [(kind, *searched(client, kind)) for kind in kinds]
        return seen

    published(2)
    with running_app(index.root, store=address) as client, ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(load, client) for _ in range(2)]
        try:
            for classes in (4, 2, 5):
                published(classes)
                eventually(lambda: searched(client, 1)[0] == index.current(), "the switch")
        finally:
            ended.set()
        seen = [one for future in clients for one in future.result()]
    assert {version for _, version, _ in seen} == expected.keys()
    assert [one for one in seen if one[2] != expected[one[1]][one[0]]] == []


@pytest.fixture
def shop(address: str, tmp_path: Path, fake_embedder: Embedder) -> Iterator[tuple[AppClient, IndexDirectory]]:
    """A server whose gallery may be changed, three classes of four photos."""
    index = directory(tmp_path / "index", address)
    publish(index, tmp_path, fake_embedder, 3)
    (tmp_path / "keys").write_text(f"{ADMIN} shop admin\n")
    with running_app(index.root, store=address, keys_file=tmp_path / "keys", delta_dir=tmp_path / "delta") as client:
        yield client, index


def test_photos_are_put_and_deleted_beside_milvus_and_folded_into_it(
    shop: tuple[AppClient, IndexDirectory], tmp_path: Path
) -> None:
    client, index = shop
    photo = car_photo(9, 1)
    put = client.request(
        "PUT",
        "/gallery/new.jpg",
        params={"class": "car 9"},
        content=photo,
        headers=KEY | {"Content-Type": "image/jpeg"},
    )
    assert put.status_code == 200, put.text
    assert client.delete("/gallery/car 1/0.jpg", headers=KEY).status_code == 204
    before = searched(client, 9)
    assert before[1][0] == "new.jpg"
    assert len(before[1]) == 12
    assert "car 1/0.jpg" not in before[1]
    version = fold_index(index, DeltaLog(tmp_path / "delta")).version
    eventually(lambda: searched(client, 9)[0] == version, "the fold is served")
    assert searched(client, 9)[1] == before[1]
    assert index.manifest(version).count == 12


def test_the_commands_index_and_fold_in_the_store_of_the_environment(
    address: str, priced: Path, tmp_path: Path, shipped_embedder: Embedder
) -> None:
    root, delta = tmp_path / "index", tmp_path / "delta"
    done = run_cli("index", priced, "--index", root, "--model", shipped_embedder.directory, STORE=address)
    assert done.returncode == 0, done.stderr
    log, photo = DeltaLog(delta), car_photo(1, 1)
    log.put([NewPhoto("new.jpg", "", photo, shipped_embedder.embed_photo(photo))], shipped_embedder.embedding_id)
    log.close()
    folded = run_cli("index", "--fold", "--delta", delta, "--index", root, STORE=address)
    assert folded.returncode == 0, folded.stderr
    index = directory(root, address)  # only now: one process at a time can use a Milvus in a file
    manifests = [index.manifest(version) for version in index.versions()]
    assert [one.count for one in manifests] == [CLASSES * PHOTOS, CLASSES * PHOTOS + 1]
    assert {one.storage for one in manifests} == {Storage.milvus}
    assert index.pointer() == (manifests[1].id, (root / "CURRENT").stat().st_mtime_ns)


@pytest.mark.engines
def test_135_a_killed_milvus_loses_nothing(milvus: MilvusServer, tmp_path: Path, fake_embedder: Embedder) -> None:
    address = database_of(milvus)
    index = directory(tmp_path / "index", address)
    publish(index, tmp_path, fake_embedder, 2)
    with running_app(index.root, store=address) as client:
        before = searched(client, 1)
        published = publish(index, tmp_path, fake_embedder, 3)
        milvus.kill()
        refused = client.post("/search", files={"file": car_photo(1, 9)})
        assert_problem(refused, "backend_unavailable", milvus.address)
        with pytest.raises(StoreUnavailable):
            index.current()
        milvus.start()
        eventually(lambda: index.current() == published.version, "the alias is there")
        eventually(lambda: answers(client), "Milvus answers again")
        eventually(lambda: searched(client, 1)[0] == published.version, "the new version is served")
        assert len(searched(client, 1)[1]) == 12 > len(before[1])
        index.rollback()
        eventually(lambda: searched(client, 1) == before, "the version before is there too")


def answers(client: AppClient) -> bool:
    return client.post("/search", files={"file": car_photo(1, 9)}).status_code == 200


def test_a_large_gallery_is_searched_in_lists(
    address: str, priced: Path, tmp_path: Path, fake_embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.milvus_versions.LISTS_FROM", 50)
    index = directory(tmp_path / "index", address)
    published = build_index(priced, index, fake_embedder)
    recipe = index.manifest(published.version).index_recipe
    assert published.recall is not None
    assert published.recall >= 0.99
    assert 1 <= recipe["nprobe"] <= recipe["nlist"] == 8
    hits = Engine.load(index, runtime="fake").search(car_photo(3, 2), 3, ["car 3"], "price = 302")
    assert [hit.id for hit in hits] == ["car 3/2.jpg"]
