"""Cases 045 to 047 of the catalogue: a decoder that raises what it should not, crashes, or hangs."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from indexer.versions import IndexDirectory
from service.http.app import END_S
from tests.e2e.catalogue.faulty_decoder import HANG_S, asking
from tests.e2e.catalogue.pictures import PHOTO, PIXELS, QUERY, png
from tests.e2e.catalogue.standing import Standing
from tests.support.bodies import zip_of
from tests.support.calls import assert_problem, at_work, eventually, search
from tests.support.photos import car_photo, jpeg
from tests.support.servers import Server, running_server

FAULTY = "tests.e2e.catalogue.faulty_decoder"
PLAIN = png(PHOTO)
DEADLINE_S = 1.5
READY_S = 10
"""Longest time from the start of a process to its first answer."""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, catalogue_index: IndexDirectory) -> Iterator[Standing]:
    """A server of two threads whose decoder breaks where it is asked to, with a short deadline."""
    folder: Path = tmp_path_factory.mktemp("faulty")
    (folder / "spool").mkdir()
    settings = {"SPOOL_DIR": str(folder / "spool"), "SEARCH_THREADS": "2", "REQUEST_DEADLINE_S": str(DEADLINE_S)}
    with running_server(catalogue_index.root, folder / "log", True, FAULTY, **settings) as server:
        standing = Standing(server, folder / "spool")
        yield standing
        standing.assert_memory()


@pytest.mark.parametrize("fault", ["MemoryError", "RecursionError", "OverflowError", "error"], ids=lambda f: f"045 {f}")
def test_whatever_a_decoder_raises_is_an_undecodable_photo_and_the_log_says_what_it_was(
    faulty: Standing, fault: str
) -> None:
    with faulty.case("image_undecodable", "fault") as send:
        refused = send(files={"file": asking(PLAIN, fault)})
    (line,) = [line for line in faulty.server.log.splitlines() if refused.headers["x-request-id"] in line]
    assert f"422 image_undecodable ({fault})" in line


def test_045_a_photo_on_which_the_fast_decoder_fails_is_left_to_the_other_one(faulty: Standing) -> None:
    photo = jpeg(PIXELS, quality=95)
    with faulty.case("ok") as send:
        found = send(files={"file": asking(photo, "simplejpeg")}).json()
    assert found["nearest"]["class"] == "plain"
    assert found["nearest"]["score"] >= 0.999


def test_045_in_a_set_the_photo_is_named_and_the_others_are_scored(faulty: Standing) -> None:
    photos = {f"{kind}/{shot}.jpg": car_photo(kind, shot) for kind in range(2) for shot in range(3)}
    archive = zip_of({**photos, "0/bad.png": asking(PLAIN, "MemoryError")})
    with faulty.case("ok") as send:
        report = send("/evaluate", files={"archive": archive}).json()
    assert report["total"] == len(photos)
    assert [(one["name"], one["code"]) for one in report["skipped"]] == [("0/bad.png", "image_undecodable")]


def hanging(server: Server, release: Path) -> httpx.Response:
    """Searches with a photo on which the decoder hangs until `release` is there."""
    photo = asking(PLAIN, f"hang {release}")
    return httpx.post(f"{server.url}/search", files={"file": photo}, timeout=30)


def both_hanging(server: Server, release: Path) -> list[httpx.Response]:
    """Two of them at once."""
    with ThreadPoolExecutor(2) as both:
        return list(both.map(lambda _: hanging(server, release), range(2)))


def test_047_a_decoder_that_hangs_costs_its_thread_and_others_are_answered(faulty: Standing, tmp_path: Path) -> None:
    release = tmp_path / "release"
    try:
        answer = hanging(faulty.server, release)
        assert_problem(answer, "deadline_exceeded")
        assert answer.headers["retry-after"]
        for _ in range(5):
            faulty.probe()
    finally:
        release.touch()
    faulty.assert_stands()


def test_047_when_all_threads_hang_searches_are_refused_in_time_and_liveness_is_not_affected(
    faulty: Standing, tmp_path: Path
) -> None:
    release, server = tmp_path / "release", faulty.server
    try:
        for answer in both_hanging(server, release):
            assert_problem(answer, "deadline_exceeded")
        started = time.monotonic()
        assert_problem(server.client.post("/search", files={"file": PLAIN}), "deadline_exceeded")
        assert time.monotonic() - started < DEADLINE_S + 5
        assert [server.client.get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]
    finally:
        release.touch()
    assert at_work(server) == 0
    eventually(lambda: search(server, PLAIN)["nearest"] is not None, "the threads are free")
    faulty.assert_stands()


def test_047_a_decoder_that_hangs_does_not_keep_a_server_from_ending(
    tmp_path: Path, catalogue_index: IndexDirectory
) -> None:
    settings = {"REQUEST_DEADLINE_S": "0.5"}
    with running_server(catalogue_index.root, tmp_path / "log", True, FAULTY, **settings) as server:
        assert_problem(hanging(server, tmp_path / "never"), "deadline_exceeded")
        started = time.monotonic()
        server.process.terminate()
        assert server.process.wait(timeout=HANG_S) == -signal.SIGTERM
        assert time.monotonic() - started <= END_S + 5


def test_046_a_crash_in_a_decoder_ends_the_process_damages_nothing_and_is_over_with_the_restart(
    tmp_path: Path, catalogue_index: IndexDirectory
) -> None:
    """Decoders are not sandboxed: the restart policy (docker-compose.yml) is what brings the server back."""
    spool = tmp_path / "spool"
    spool.mkdir()
    before = sorted(path for path in catalogue_index.root.rglob("*"))
    with running_server(catalogue_index.root, tmp_path / "first", module=FAULTY, SPOOL_DIR=str(spool)) as server:
        found = nearest(server)
        with pytest.raises(httpx.TransportError):
            server.client.post("/search", files={"file": asking(PLAIN, "SIGSEGV")})
        assert server.process.wait(timeout=30) == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in server.log
    assert "faulty_decoder.py" in server.log  # where it was
    assert list(spool.iterdir()) == []
    assert sorted(path for path in catalogue_index.root.rglob("*")) == before
    catalogue_index.verify(catalogue_index.current())
    started = time.monotonic()
    with running_server(catalogue_index.root, tmp_path / "second", SPOOL_DIR=str(spool)) as server:
        assert time.monotonic() - started <= READY_S
        assert nearest(server) == found


def nearest(server: Server) -> list[tuple[str, float]]:
    """Ids and scores of an ordinary search."""
    answer = server.client.post("/search", files={"file": QUERY.read_bytes()})
    assert answer.status_code == 200, answer.text
    return [(hit["id"], hit["score"]) for hit in answer.json()["results"]]
