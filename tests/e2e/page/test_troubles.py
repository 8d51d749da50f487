"""The page when things are not as they should be: keys, busy and absent servers, slow networks."""

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.serving import free_port
from indexer.versions import IndexDirectory
from tests.e2e.page.conftest import CHOOSE, OpenPage, wait_until
from tests.support import servers
from tests.support.photos import car_pixels, jpeg
from tests.support.servers import Server, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SEARCHER, ADMIN = "a-key-for-searches-only", "a-key-for-evaluations-too"


def test_a_key_is_asked_for_kept_for_the_tab_and_forgotten(
    open_page: OpenPage, fake_index: IndexDirectory, photo: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{SEARCHER} alice search\n{ADMIN} bob admin\n")
    with running_server(fake_index.root, tmp_path / "log", KEYS_FILE=str(keys)) as server:
        page = open_page(server.url)
        page.fill("dialog input", "a key that nobody knows")
        page.click("text=Use this key")
        page.wait_for_selector("dialog >> text=Send an API key that this server knows")
        page.fill("dialog input", SEARCHER)
        page.keyboard.press("Enter")
        page.set_input_files(CHOOSE, photo)
        page.wait_for_selector(".card")
        wait_until(page, "[...document.querySelectorAll('.card img')].some((image) => image.naturalWidth > 0)")
        page.click("text=This search in code")
        assert '-H "X-Api-Key: $KEY"' in page.inner_text(".copy code")
        assert SEARCHER not in page.content()
        page.reload()
        page.click("nav >> text=Evaluate")
        page.wait_for_selector("text=this needs one of the scope admin")
        assert page.inner_text(".problem code") == "forbidden"
        page.click("text=Use another key")
        page.fill("dialog input", ADMIN)
        page.click("text=Use this key")
        page.wait_for_selector("text=None yet.")
        assert page.locator("#view-evaluate .problem").count() == 0
        page.click("nav >> text=Status")
        page.click("text=Forget the key")
        page.click("dialog >> text=Cancel")
        page.wait_for_selector(".problem >> text=unauthorized")


def test_whoever_gives_no_key_is_not_asked_again_by_itself(
    open_page: OpenPage, fake_index: IndexDirectory, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{SEARCHER} alice search\n")
    with running_server(fake_index.root, tmp_path / "log", KEYS_FILE=str(keys)) as server:
        page = open_page(server.url, "#gallery")
        page.click("dialog >> text=Cancel")
        page.wait_for_selector("#view-gallery .problem >> text=unauthorized")
        page.wait_for_timeout(1000)
        assert page.locator("dialog").count() == 0
        page.click("#view-gallery .problem >> text=Try again")
        page.fill("dialog input", SEARCHER)
        page.click("text=Use this key")
        page.wait_for_selector("#view-gallery .tiles li")


def test_a_busy_server_is_asked_again_when_it_says(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    asked_s: list[float] = []

    def refuse_twice(route: "Route") -> None:
        asked_s.append(time.monotonic())
        if len(asked_s) == 3:
            route.continue_()
            return
        body = {"status": 429, "code": "overloaded", "detail": "Try again in a moment."}
        route.fulfill(status=429, headers={"Retry-After": "1"}, json=body)

    page.route("**/search?*", refuse_twice)
    page.set_input_files(CHOOSE, photo)
    page.wait_for_selector("text=trying again in 1 s")
    page.wait_for_selector(".card")
    assert len(asked_s) == 3
    assert all(later - earlier >= 0.9 for earlier, later in itertools.pairwise(asked_s))


def test_a_slow_network_shows_progress_and_sends_once(open_page: OpenPage, cars: Server, tmp_path: Path) -> None:
    photo = tmp_path / "large.jpg"
    photo.write_bytes(jpeg(car_pixels(1, 99, (1000, 800))))
    page = open_page(cars.url)
    page.wait_for_selector(".samples img")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/search" in request.url else None)
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 50, "downloadThroughput": 500_000, "uploadThroughput": 150_000}
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", slow)
    page.set_input_files(CHOOSE, photo)
    page.wait_for_selector("text=Sending the photo")
    assert page.get_attribute("#view-search", "aria-busy") == "true"
    assert page.is_disabled("text=Crop")
    page.wait_for_selector(".card")
    assert len(sent) == 1
    page.set_input_files(".query-photo input", photo)
    page.click("text=Cancel")
    page.wait_for_selector(".problem >> text=cancelled")
    assert page.is_enabled("text=Crop")


def test_a_server_that_goes_and_comes_back_is_told(
    open_page: OpenPage, fake_index: IndexDirectory, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setattr(servers, "free_port", lambda: port)
    with running_server(fake_index.root, tmp_path / "log") as server:
        page = open_page(server.url)
        page.wait_for_selector(".samples img")
    page.set_input_files(CHOOSE, photo)
    page.wait_for_selector("#outage >> text=The server cannot be reached")
    assert page.inner_text(".problem code") == "unreachable"
    with running_server(fake_index.root, tmp_path / "log2"):
        page.wait_for_selector("#outage >> text=The server is back")
        page.wait_for_selector(".card")
