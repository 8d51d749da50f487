"""The engine that serves: it comes with an index, is swapped whole under load, and refuses what does not verify."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.build import build_index
from indexer.manifest import INDEX_NAME, ITEMS_NAME, MANIFEST_NAME
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.embedder import Embedder
from tests.conftest import write_fake_model
from tests.support.calls import assert_problem, eventually, metric, search
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import Server, run_cli, running_server

CLIENTS = 4
SWITCHES = 10
REFUSED = "carsearch_index_refusals_total"
LOOKS_S = 0.5  # several looks of the watcher at CURRENT


@pytest.fixture(scope="module")
def other_embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """A second model, of other dimensions and larger crops."""
    return Embedder.load(write_fake_model(tmp_path_factory.mktemp("other-model"), dim=96, crop=40), "fake")


def info(server: Server) -> dict[str, Any]:
    told: dict[str, Any] = server.client.get("/info").json()
    return told


def serves(server: Server, version: str) -> bool:
    told = info(server)
    return bool(told["ready"] and told["versions"]["index"] == version)


def point_to(index: IndexDirectory, name: str) -> None:
    (index.root / CURRENT_NAME).write_text(f"{name}\n")


def ids_of(gallery: Path) -> set[str]:
    from model.dataset import read_items

    return {item.id for item in read_items(gallery).items}


def test_a_server_waits_for_its_index_and_then_keeps_it(tmp_path: Path, fake_embedder: Embedder) -> None:
    index = IndexDirectory(tmp_path / "index")
    with running_server(index.root, tmp_path / "log", wait_ready=False, RUNTIME="fake") as server:
        assert server.client.get("/livez").status_code == 200
        for method, path in (
            ("GET", "/readyz"),
            ("POST", "/search"),
            ("GET", "/gallery/classes"),
            ("POST", "/evaluate"),
        ):
            waiting = server.client.request(method, path)
            assert_problem(waiting, "not_ready", str(tmp_path))
            assert int(waiting.headers["retry-after"]) >= 1
        assert (info(server)["ready"], info(server)["versions"]) == (False, None)
        assert f"There is no index in {index.root}" in server.log

        version = build_index(write_gallery(tmp_path / "gallery"), index, fake_embedder).version
        eventually(lambda: server.client.get("/readyz").status_code == 200, "the server is ready")
        assert search(server, car_photo(1, 0))["versions"]["index"] == version
        assert metric(server, "carsearch_ready") == 1

        (index.root / CURRENT_NAME).unlink()
        time.sleep(LOOKS_S)
        assert serves(server, version)
        assert len(search(server, car_photo(1, 0), k=100)["results"]) == 12


def test_swaps_under_load_lose_no_request_and_mix_no_versions(
    tmp_path: Path, fake_embedder: Embedder, other_embedder: Embedder
) -> None:
    index = IndexDirectory(tmp_path / "index")
    galleries = write_gallery(tmp_path / "a"), write_gallery(tmp_path / "b", first_kind=10, classes=4)
    built = [build_index(galleries[0], index, fake_embedder), build_index(galleries[1], index, other_embedder)]
    versions = [one.version for one in built]
    ids = {version: ids_of(gallery) for version, gallery in zip(versions, galleries, strict=True)}
    models = dict(zip(versions, (fake_embedder.model_sha256, other_embedder.model_sha256), strict=True))
    with running_server(index.root, tmp_path / "log") as server:
        stop, answers = threading.Event(), [list[httpx.Response]() for _ in range(CLIENTS)]

        def keep_searching(found: list[httpx.Response]) -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                while not stop.is_set():
                    found.append(client.post("/search", params={"k": 100}, files={"file": car_photo(10, 0)}))

        clients = [threading.Thread(target=keep_searching, args=(found,)) for found in answers]
        for client in clients:
            client.start()
        try:
            for turn in range(SWITCHES):
                version = versions[turn % 2]
                index.switch(version) if turn % 4 else index.rollback(version)
                eventually(partial(serves, server, version), f"{version} is served")
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert metric(server, "carsearch_index_swaps_total") == SWITCHES + 1
    responses = [response for found in answers for response in found]
    assert {response.status_code for response in responses} == {200}
    seen = set()
    for answer in (response.json() for response in responses):
        version = answer["versions"]["index"]
        seen.add(version)
        assert {hit["id"] for hit in answer["results"]} == ids[version]
        assert answer["versions"]["model_sha256"] == models[version]
    assert seen == set(versions)


def flip_a_byte(version: Path) -> None:
    content = bytearray((version / INDEX_NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (version / INDEX_NAME).write_bytes(content)


def cut_the_items(version: Path) -> None:
    content = (version / ITEMS_NAME).read_bytes()
    (version / ITEMS_NAME).write_bytes(content[: len(content) // 2])


def change_the_manifest(**changes: object) -> Callable[[Path], None]:
    def change(version: Path) -> None:
        manifest = json.loads((version / MANIFEST_NAME).read_text())
        (version / MANIFEST_NAME).write_text(json.dumps({**manifest, **changes}))

    return change


def garble_the_manifest(version: Path) -> None:
    (version / MANIFEST_NAME).write_bytes(b"\xff{")


@pytest.fixture(scope="module")
def steady(
    tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder
) -> Iterator[tuple[Server, IndexDirectory]]:
    """A server over an index that is then given bad versions."""
    folder = tmp_path_factory.mktemp("steady")
    index = IndexDirectory(folder / "index")
    build_index(write_gallery(folder / "gallery"), index, fake_embedder)
    with running_server(index.root, folder / "log") as server:
        yield server, index


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        cut_the_items,
        garble_the_manifest,
        shutil.rmtree,
        lambda version: (version / MANIFEST_NAME).unlink(),
        lambda version: (version / INDEX_NAME).unlink(),
        change_the_manifest(schema_version=99),
        change_the_manifest(metric="l2"),
        change_the_manifest(dim=7),
        change_the_manifest(count=11),
        change_the_manifest(id="another"),
        change_the_manifest(model_sha256="0" * 64),
        change_the_manifest(preprocessing_sha256="0" * 64),
        change_the_manifest(embedding_id="0" * 16),
        change_the_manifest(created="yesterday"),
    ],
)  # fmt: skip
def test_a_version_that_does_not_verify_is_refused_and_the_old_one_goes_on(
    steady: tuple[Server, IndexDirectory], damage: Callable[[Path], None]
) -> None:
    server, index = steady
    good, refused = info(server)["versions"]["index"], metric(server, REFUSED)
    bad = "20990101T000000.000000Z-bad"
    shutil.rmtree(index.path_of(bad), ignore_errors=True)
    shutil.copytree(index.path_of(good), index.path_of(bad))
    change_the_manifest(id=bad)(index.path_of(bad))
    damage(index.path_of(bad))
    point_to(index, bad)
    eventually(lambda: metric(server, REFUSED) == refused + 1, "the version is refused")
    assert (info(server)["refused_version"], info(server)["ready"]) == (bad, True)
    assert server.client.get("/readyz").status_code == 200
    assert search(server, car_photo(1, 0))["versions"]["index"] == good
    assert f"refused index version {bad}: " in server.log
    index.switch(good)
    eventually(lambda: info(server)["refused_version"] is None, "nothing is refused any more")


@pytest.mark.parametrize("rubbish", [b"", b"../..", b"\xff\xfe", b"x" * 5000, b"a/b"])
def test_a_current_that_names_nothing_changes_nothing(steady: tuple[Server, IndexDirectory], rubbish: bytes) -> None:
    server, index = steady
    good = info(server)["versions"]["index"]
    (index.root / CURRENT_NAME).write_bytes(rubbish)
    time.sleep(LOOKS_S)
    assert search(server, car_photo(1, 0))["versions"]["index"] == good
    index.switch(good)
    eventually(lambda: info(server)["refused_version"] is None, "nothing is refused any more")
    assert serves(server, good)


def test_a_server_told_to_expect_another_model_is_not_ready_and_says_why(
    tmp_path: Path, fake_index: IndexDirectory
) -> None:
    model = write_fake_model(tmp_path / "model", dim=96)
    with running_server(fake_index.root, tmp_path / "log", wait_ready=False, MODEL=str(model)) as server:
        eventually(lambda: metric(server, REFUSED) == 1, "the index is refused")
        assert_problem(server.client.get("/readyz"), "not_ready", str(tmp_path), str(fake_index.root))
        assert info(server)["refused_version"] == fake_index.current()
        assert f"was built with the model {fake_index.manifest(fake_index.current()).model_sha256[:12]}" in server.log


def test_serving_and_searching_write_nothing_into_the_index(tmp_path: Path, real_index: IndexDirectory) -> None:
    root = tmp_path / "index"
    shutil.copytree(real_index.root, root)

    def tree() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [root, *root.rglob("*")]}

    for path in [*root.rglob("*"), root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = tree()
    try:
        with running_server(root, tmp_path / "log") as server:
            assert search(server, car_photo(1, 0))["nearest"]["class"] == "car 1"
        photo = tmp_path / "photo.jpg"
        photo.write_bytes(car_photo(1, 0))
        assert run_cli("search", photo, "--index", root).returncode == 0
        assert tree() == before
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755)
