"""The page's gallery, evaluations and status; its looks on phones and in the dark, and for screen readers."""

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from tests.e2e.page.conftest import CHOOSE, OpenPage, serious, wait_until
from tests.support.photos import car_photo
from tests.support.servers import Server, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MANY = 5000


def test_thousands_of_photos_are_loaded_as_they_come_into_sight(
    open_page: OpenPage, tmp_path: Path, fake_embedder: Embedder
) -> None:
    gallery = tmp_path / "gallery"
    for kind in range(20):
        (gallery / f"car {kind}").mkdir(parents=True)
        data = car_photo(kind, 0, (48, 36))
        for shot in range(MANY // 20):
            (gallery / f"car {kind}" / f"{shot}.jpg").write_bytes(data)
    index = IndexDirectory(tmp_path / "index")
    build_index(gallery, index, fake_embedder)
    with running_server(index.root, tmp_path / "log") as server:
        page = open_page(server.url, "#gallery")
        page.wait_for_selector(".tiles li")
        page.wait_for_timeout(500)
        assert page.locator(".tiles li").count() <= 120
        while (shown := page.locator(".tiles li").count()) < MANY:
            page.mouse.wheel(0, 20_000)
            page.locator(".tiles li").nth(shown).wait_for(state="attached")
        wait_until(page, "[...document.querySelectorAll('.tiles img')].at(-1).naturalWidth > 0")
        assert page.inner_text("#view-gallery > .hint") == f"{MANY:,} of {MANY:,} photos"
        page.fill("#view-gallery input >> nth=0", "car 19")
        page.click("#view-gallery form button")
        page.wait_for_selector(f"text=of {MANY // 20} photos")  # so many are shown as are in sight


def test_the_link_to_the_content_stays_in_its_view(open_page: OpenPage, cars: Server) -> None:
    page = open_page(cars.url, "#gallery")
    page.wait_for_selector("#view-gallery .tiles li")
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.evaluate("location.hash") == "#gallery"
    assert page.is_visible("#view-gallery")


def test_a_zip_is_evaluated_to_its_report(open_page: OpenPage, cars: Server, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for kind in range(20, 23):
            for shot in range(4):
                packed.writestr(f"kind {kind}/{shot}.jpg", car_photo(kind, shot))
    (tmp_path / "set.zip").write_bytes(archive.getvalue())
    page = open_page(cars.url, "#evaluate")
    page.set_input_files("#view-evaluate .drop input", tmp_path / "set.zip")
    page.wait_for_selector(".figures")
    assert "/ 12" in page.inner_text(".figures")
    assert "95% interval" in page.inner_text(".figures")
    assert "kind 20" in page.inner_text(".report")
    with page.expect_download() as download:
        page.click("text=Download the report")
    assert download.value.suggested_filename.endswith(".json")
    page.reload()
    page.click(".past button >> nth=0")
    page.wait_for_selector(".figures")
    page.click("text=Evaluate the set “mine”")
    page.wait_for_selector("text=/ 25")


def test_an_archive_without_photos_is_told(open_page: OpenPage, cars: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_text("no zip")
    page = open_page(cars.url, "#evaluate")
    page.set_input_files("#view-evaluate .drop input", tmp_path / "set.zip")
    assert page.inner_text(".problem code") == "unsupported_archive"
    assert page.is_enabled("#view-evaluate .drop input")


def test_the_status_tells_what_is_served(open_page: OpenPage, cars: Server) -> None:
    page = open_page(cars.url, "#status")
    text = page.inner_text(".facts")
    assert "25 photos, 5 classes" in text
    assert "price (number)" in text
    assert "resnet18" in text


def test_the_gallery_is_narrowed_by_class_and_metadata(open_page: OpenPage, cars: Server) -> None:
    page = open_page(cars.url, "#gallery")
    page.wait_for_selector("text=25 of 25 photos")
    page.fill("#view-gallery input >> nth=0", "CAR")
    page.fill("#view-gallery input >> nth=1", "price < 12000 and colour = 'red'")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=7 of 7 photos")  # of 12 cheap ones the first 5 are of the hostile class
    page.click(".tiles .thumb >> nth=0")
    assert "colour|red" in page.inner_text("dialog dl").replace("\n", "|")


def press_until(page: "Page", key: str, selector: str) -> None:
    """Presses a key until an element has the focus, which must be seen on each on the way."""
    for _ in range(60):
        page.keyboard.press(key)
        focused = page.locator(":focus")
        if focused.count() and focused.evaluate("(one, selector) => one.matches(selector)", selector):
            assert (
                focused.evaluate("one => getComputedStyle(one.closest('.drop, .button') ?? one).outlineStyle") != "none"
            )
            return
    raise AssertionError(f"{key} never leads to {selector}")


def test_the_page_can_be_used_by_keys_alone(open_page: OpenPage, cars: Server) -> None:
    page = open_page(cars.url)
    page.wait_for_selector(".samples img")
    press_until(page, "Tab", ".drop input")
    press_until(page, "Tab", ".samples button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".found:not(.old) .card")
    press_until(page, "Tab", ".card .thumb")
    page.keyboard.press("Enter")
    page.wait_for_selector(".fade input")
    assert page.evaluate("document.activeElement.tagName") == "DIALOG"
    press_until(page, "Tab", "input[type=range]")
    page.keyboard.press("ArrowLeft")
    assert page.input_value(".fade input") == "79"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.card .thumb')")
    press_until(page, "Shift+Tab", "a[href='#gallery']")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tiles li")
    assert page.evaluate("document.activeElement.id") == "main"
    press_until(page, "Tab", ".tiles .thumb")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.tiles .thumb')")


def shown(page: "Page", photo: Path) -> None:
    """Every view once, with something in it."""
    page.wait_for_selector(".samples li")
    page.set_input_files(CHOOSE, photo)
    page.wait_for_selector(".found:not(.old) .card")
    page.click("text=Options" if page.locator("text=Options").count() else "text=옵션")


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_is_wider_than_the_screen(open_page: OpenPage, cars: Server, photo: Path, width: int) -> None:
    page = open_page(cars.url, viewport={"width": width, "height": 800})
    shown(page, photo)
    page.click(".card .thumb >> nth=0")
    page.wait_for_selector(".fade")
    assert page.evaluate(
        "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(document.querySelector('dialog'))"
    )
    page.keyboard.press("Escape")
    for view in ("search", "gallery", "evaluate", "status"):
        page.goto(f"{cars.url}/#{view}")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page: OpenPage, cars: Server, photo: Path, axe: str, scheme: str) -> None:
    page = open_page(cars.url, color_scheme=scheme)
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 18, 22)") == (scheme == "dark")
    found = {"start": serious(page, axe)}
    shown(page, photo)
    found["search"] = serious(page, axe)
    page.click("text=Crop")
    found["crop"] = serious(page, axe)
    page.click(".card .thumb >> nth=0")
    page.wait_for_selector(".fade")
    found["viewer"] = serious(page, axe)
    page.keyboard.press("Escape")
    page.goto(f"{cars.url}/#evaluate")
    page.click("text=Evaluate the set “mine”")
    page.wait_for_selector(".figures")
    found["evaluate"] = serious(page, axe)
    for view, ready in (("gallery", ".tiles li"), ("status", ".facts")):
        page.goto(f"{cars.url}/#{view}")
        page.wait_for_selector(f"#view-{view} {ready}")
        found[view] = serious(page, axe)
    assert {view: wrong for view, wrong in found.items() if wrong} == {}
