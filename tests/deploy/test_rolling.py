"""Three replicas behind the proxy, stopped and killed one after the other under load: no search is lost."""

import signal
import time
from pathlib import Path

import httpx
import pytest

from bench.serving import free_port
from indexer.versions import IndexDirectory
from model.dataset import read_items
from service.engine import Engine
from tests.deploy.calls import PHOTO
from tests.deploy.nginx import Nginx, needs_nginx, port_of, running_nginx
from tests.deploy.replicas import Load, Replica, running_replicas
from tests.support.servers import START_S, Server

pytestmark = [pytest.mark.deploy, needs_nginx]
CLIENTS = 6
WHILE_GONE = 40


@pytest.fixture(scope="module")
def photos(gallery: Path, real_index: IndexDirectory) -> dict[str, bytes]:
    """The gallery's photos by id; each is its own nearest one."""
    found = {item.id: item.read() for item in read_items(gallery).items}
    engine = Engine.load(real_index)
    assert [engine.search(photo, 1, ())[0].id for photo in found.values()] == list(found)
    return found


def answered_by(nginx: Nginx, replica: Replica) -> int:
    """How many searches the proxy has passed on from a replica."""
    address = f"127.0.0.1:{replica.port}"
    return sum(line["status"] == 200 and line["upstream"].endswith(address) for line in nginx.log)


def wait_until_it_answers(nginx: Nginx, replica: Replica) -> None:
    """Waits until the proxy asks a replica again."""
    before, deadline = answered_by(nginx, replica), time.monotonic() + START_S
    while answered_by(nginx, replica) == before:
        assert time.monotonic() < deadline, f"the replica on port {replica.port} is not asked any more"
        time.sleep(0.1)


def test_a_rolling_restart_and_kills_lose_no_search(
    tmp_path: Path, real_index: IndexDirectory, photos: dict[str, bytes]
) -> None:
    with (
        running_replicas(real_index.root, tmp_path, 3) as replicas,
        running_nginx(tmp_path / "nginx", [replica.port for replica in replicas]) as nginx,
    ):
        load = Load(nginx.url, photos)
        with load.running(CLIENTS):
            load.wait_for_more(2 * WHILE_GONE)
            for number in (signal.SIGTERM, signal.SIGKILL):
                for replica in replicas:
                    assert replica.end(number) == -number
                    load.wait_for_more(WHILE_GONE)
                    replica.start()
                    wait_until_it_answers(nginx, replica)
    assert load.failures == []
    assert load.answers > 500
    log = [line for line in nginx.log if line["route"] == "/search"]
    assert {line["status"] for line in log} == {200}
    assert sum("," in line["upstream"] for line in log) >= 6  # each time somebody met the one that was gone


@pytest.mark.parametrize(("tries", "statuses"), [(2, [200] * 10), (1, [200] * 5 + [502] * 5)])
def test_it_is_the_second_try_that_saves_them(tmp_path: Path, server: Server, tries: int, statuses: list[int]) -> None:
    def edit(text: str) -> str:  # and nobody is passed over, so that every other search meets the one that is gone
        return text.replace("tries 2;", f"tries {tries};").replace("max_fails=1", "max_fails=0")

    with running_nginx(tmp_path / "nginx", [port_of(server.url), free_port()], edit) as nginx:
        answers = [httpx.post(f"{nginx.url}/search", files=PHOTO).status_code for _ in statuses]
    assert sorted(answers) == statuses
