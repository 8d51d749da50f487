"""A server that has too few files or too full a disk refuses what it has no room for (092), and goes on."""

import http.client
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest

from indexer.versions import IndexDirectory
from tests.support.bodies import form, zip_of
from tests.support.calls import assert_problem, assert_unharmed, evaluate, eventually
from tests.support.connections import answer, connect, head
from tests.support.photos import car_photo
from tests.support.servers import changed_server, running_server

FEW_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
SET_OF_96 = {f"{kind}/{shot}.jpg": car_photo(kind, shot) for kind in range(8) for shot in range(12)}


def test_092_a_server_out_of_files_refuses_or_answers_and_recovers(tmp_path: Path, fake_index: IndexDirectory) -> None:
    statuses: Counter[int] = Counter()
    body = form(car_photo(1, 0))
    with changed_server(FEW_FILES, fake_index.root, tmp_path / "log", SPOOL_DIR=str(tmp_path)) as server:
        with ExitStack() as stack:
            connections = [stack.enter_context(connect(server)) for _ in range(100)]
            for number, connection in enumerate(connections):
                try:
                    if number % 4 == 3:
                        archive = form(zip_of(SET_OF_96), "archive")
                        begun = head(f"Content-Length: {len(archive)}").replace(b"/search", b"/evaluate")
                        connection.sendall(begun + archive)
                    else:
                        connection.sendall(head(f"Content-Length: {len(body)}") + body)
                    statuses[answer(connection)[0]] += 1
                except (ConnectionError, BrokenPipeError):
                    statuses[0] += 1  # no byte of an answer
        assert statuses[0] > 0
        assert statuses.keys() <= {0, 200, 429, 503}
        eventually(lambda: server.client.get("/readyz").status_code == 200, "there are files again")
        assert_unharmed(server, server.process.pid)
        assert evaluate(server, zip_of(SET_OF_96)).status_code == 200


def test_092_a_photo_of_the_gallery_is_not_taken_for_gone_when_there_are_no_files(
    tmp_path: Path, fake_index: IndexDirectory
) -> None:
    with changed_server(FEW_FILES, fake_index.root, tmp_path / "log") as server, ExitStack() as stack:
        found = server.client.post("/search", files={"file": car_photo(1, 0)}).json()["nearest"]["id"]
        asking = f"GET /gallery/{quote(found)}/image HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        kept = stack.enter_context(connect(server))  # a new connection would find no file either

        def status() -> int:
            kept.sendall(asking)
            reply = http.client.HTTPResponse(kept)
            reply.begin()
            reply.read()
            return reply.status

        assert status() == 200
        for _ in range(100):
            stack.enter_context(connect(server))
        eventually(lambda: status() != 200, "there are no files left")
        assert {status() for _ in range(10)} == {429}


NO_THREADS = """
import os, threading
start = threading.Thread.start
def start_unless_told(self):
    if os.path.exists({flag!r}):
        raise RuntimeError("can't start new thread")
    start(self)
threading.Thread.start = start_unless_told
"""


def test_092_a_server_without_a_thread_to_start_goes_on_searching(tmp_path: Path, fake_index: IndexDirectory) -> None:
    flag = tmp_path / "no threads"
    with changed_server(NO_THREADS.format(flag=str(flag)), fake_index.root, tmp_path / "log") as server:
        flag.touch()
        for _ in range(2):
            assert_unharmed(server, server.process.pid)
            assert_problem(evaluate(server, zip_of(SET_OF_96)), "overloaded")
        flag.unlink()
        assert evaluate(server, zip_of(SET_OF_96)).status_code == 200
        assert_unharmed(server, server.process.pid)
    assert server.log.count("can't start new thread") == 2


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_092_an_archive_for_which_the_disk_has_no_room_is_refused(
    full_disk: Path, tmp_path: Path, fake_index: IndexDirectory
) -> None:
    archive = zip_of({**SET_OF_96, "a/large.jpg": os.urandom(1 << 20)})
    with running_server(fake_index.root, tmp_path / "log", SPOOL_DIR=str(full_disk)) as server:
        for _ in range(3):
            assert_problem(evaluate(server, archive), "overloaded", str(full_disk))
        assert_unharmed(server, server.process.pid)
        assert evaluate(server, zip_of({name: SET_OF_96[name] for name in list(SET_OF_96)[:24]})).status_code == 200
        assert list(full_disk.iterdir()) == []
