"""A server whose index comes, is swapped under load, and is only read."""

import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.build import build_index
from indexer.versions import CURRENT_NAME, IndexDirectory
from model.dataset import read_items
from model.embedder import Embedder, find_model
from tests.support.calls import assert_problem, eventually, metric, search
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import Server, run_cli, running_server

CLIENTS = 4
SWITCHES = 6
LOOKS_S = 0.5  # several looks of the watcher at CURRENT


@pytest.fixture(scope="module")
def other_embedder() -> Embedder:
    """The other model that ships, which takes crops of another size."""
    return Embedder.load(find_model("efficientnet_lite0"), "openvino")


def info(server: Server) -> dict[str, Any]:
    told: dict[str, Any] = server.client.get("/info").json()
    return told


def serves(server: Server, version: str) -> bool:
    told = info(server)
    return bool(told["ready"] and told["versions"]["index"] == version)


def ids_of(gallery: Path) -> set[str]:
    return {item.id for item in read_items(gallery).items}


def test_a_server_waits_for_its_index_and_then_keeps_it(tmp_path: Path, shipped_embedder: Embedder) -> None:
    index = IndexDirectory(tmp_path / "index")
    with running_server(index.root, tmp_path / "log", wait_ready=False) as server:
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

        version = build_index(write_gallery(tmp_path / "gallery"), index, shipped_embedder).version
        eventually(lambda: server.client.get("/readyz").status_code == 200, "the server is ready")
        assert search(server, car_photo(1, 0))["versions"]["index"] == version
        assert metric(server, "carsearch_ready") == 1

        (index.root / CURRENT_NAME).unlink()
        time.sleep(LOOKS_S)
        assert serves(server, version)
        assert len(search(server, car_photo(1, 0), k=100)["results"]) == 12


def test_swaps_under_load_lose_no_request_and_mix_no_versions(
    tmp_path: Path, shipped_embedder: Embedder, other_embedder: Embedder
) -> None:
    index = IndexDirectory(tmp_path / "index")
    galleries = write_gallery(tmp_path / "a"), write_gallery(tmp_path / "b", first_kind=10, classes=4)
    built = [build_index(galleries[0], index, shipped_embedder), build_index(galleries[1], index, other_embedder)]
    versions = [one.version for one in built]
    ids = {version: ids_of(gallery) for version, gallery in zip(versions, galleries, strict=True)}
    models = {version: index.manifest(version).model_name for version in versions}
    assert len(set(models.values())) == 2
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
        assert answer["versions"]["model"] == models[version]
    assert seen == set(versions)


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
