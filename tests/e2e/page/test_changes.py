"""Photos added, replaced and deleted with the page, by those who may; duplicates side by side."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from tests.e2e.page.conftest import HOSTILE, OpenPage, serious, wait_until
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import Server, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SEARCHER, ADMIN = "a-key-for-searches-only", "a-key-for-changes-too"
FILES = "dialog input[type=file]"


@pytest.fixture
def shop(tmp_path: Path, fake_embedder: Embedder) -> Iterator[Server]:
    """A server with keys and a log over two classes of two photos with prices, and one copy of a photo."""
    gallery = write_gallery(tmp_path / "gallery", classes=2, photos=2, first_kind=1)
    shutil.copy(gallery / "car 1" / "0.jpg", gallery / "car 1" / "copy.jpg")
    (gallery / "photos.csv").write_text("path,price\ncar 1/0.jpg,100\ncar 2/1.jpg,200\n")
    index = IndexDirectory(tmp_path / "index")
    build_index(gallery, index, fake_embedder)
    (tmp_path / "keys").write_text(f"{SEARCHER} alice search\n{ADMIN} bob admin\n")
    settings: dict[str, Any] = {"KEYS_FILE": str(tmp_path / "keys"), "DELTA_DIR": str(tmp_path / "delta")}
    with running_server(index.root, tmp_path / "log", **settings) as server:
        yield server


def opened(open_page: OpenPage, server: Server, key: str | None = ADMIN, **options: object) -> "Page":
    """The gallery, with a key."""
    page = open_page(server.url, "#gallery", **options)
    if key is not None:
        page.fill("dialog input", key)
        page.keyboard.press("Enter")
    page.wait_for_selector("#view-gallery .tiles li")
    return page


def ids(server: Server) -> list[str]:
    listed = server.client.get("/gallery", headers={"X-Api-Key": ADMIN}).json()
    return [photo["id"] for photo in listed["photos"]]


def search(server: Server, photo: Path) -> dict[str, object]:
    answer = server.client.post("/search", files={"file": photo.read_bytes()}, headers={"X-Api-Key": ADMIN})
    nearest: dict[str, object] = answer.json()["nearest"]
    return nearest


def test_a_photo_is_added_with_its_class_and_metadata_and_hostile_names_stay_text(
    open_page: OpenPage, shop: Server, photo: Path
) -> None:
    page = opened(open_page, shop)
    page.click("text=Add photos")
    assert page.is_disabled("dialog button.main")
    page.set_input_files(FILES, photo)
    page.fill("dialog >> label:has-text('Class') >> input", HOSTILE)
    identity = f"{HOSTILE}/my car.jpg"
    assert page.input_value("dialog >> label:has-text('id') >> input >> nth=-1") == identity
    page.click("dialog summary")
    page.fill("dialog >> label:has-text('price') >> input", "18900")
    page.fill("dialog >> label:has-text('New column') >> input", "colour")
    page.fill("dialog >> label:has-text('Its value') >> input", "red")
    page.click("dialog button.main")
    page.wait_for_selector("dialog", state="detached")
    assert page.inner_text(".tiles li >> nth=0") == HOSTILE
    assert page.inner_text("#view-gallery > .hint") == "6 of 6 photos"
    told = search(shop, photo)
    assert (told["id"], told["class"], told["metadata"]) == (identity, HOSTILE, {"price": 18900, "colour": "red"})
    page.wait_for_selector(".classes summary >> text=3 classes")
    page.click(".tiles .thumb >> nth=0")
    page.click("dialog >> text=Delete")
    assert HOSTILE in page.inner_text("dialog .doomed")
    assert page.title() == "Gallery · carsearch"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.reload()  # as the server lists it, at the end
    page.wait_for_selector("text=6 of 6 photos")
    assert page.inner_text(".tiles li >> nth=5") == HOSTILE


def test_of_several_photos_those_that_can_be_used_are_added(open_page: OpenPage, shop: Server, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(car_photo(5, number) if number != 1 else b"no photo")
    page = opened(open_page, shop)
    page.click("text=Add photos")
    page.set_input_files(FILES, [tmp_path / f"{number}.jpg" for number in range(3)])
    page.fill("dialog >> label:has-text('Class') >> input", "car 5")
    page.click("dialog button.main")
    page.wait_for_selector("dialog >> text=2 photos were added.")
    assert page.inner_text("dialog .problem").splitlines()[0].startswith("car 5/1.jpg: The file is not a JPEG")
    assert page.inner_text("dialog .problem code") == "unsupported_image_format"
    assert ids(shop)[-2:] == ["car 5/0.jpg", "car 5/2.jpg"]
    page.set_input_files(FILES, [tmp_path / "0.jpg", tmp_path / "2.jpg"])  # they are there by now
    page.click("dialog button.main")
    page.wait_for_selector("dialog >> text=2 photos with these ids are there.")
    page.click("dialog >> nth=-1 >> text=Cancel")
    page.wait_for_selector("dialog .danger", state="detached")
    assert page.is_enabled("dialog button.main")
    assert len(ids(shop)) == 7


def test_two_files_of_one_name_are_two_photos(open_page: OpenPage, shop: Server, tmp_path: Path) -> None:
    for folder in (0, 1):
        (tmp_path / str(folder)).mkdir()
        (tmp_path / str(folder) / "car.jpg").write_bytes(car_photo(6, folder))
    page = opened(open_page, shop)
    page.click("text=Add photos")
    page.set_input_files(FILES, [tmp_path / "0" / "car.jpg", tmp_path / "1" / "car.jpg"])
    page.click("dialog button.main")
    page.wait_for_selector("dialog", state="detached")
    assert ids(shop)[-2:] == ["car.jpg", "car (2).jpg"]


def test_a_photo_is_replaced_and_the_page_shows_the_new_one(open_page: OpenPage, shop: Server, photo: Path) -> None:
    page = opened(open_page, shop)
    wait_until(page, "document.querySelector('.tiles img').naturalWidth === 96")
    page.click(".tiles .thumb >> nth=0")
    page.click("text=Replace photo")
    assert page.get_attribute("dialog >> label:has-text('id') >> input >> nth=-1", "readonly") is not None
    assert page.input_value("dialog >> label:has-text('price') >> input") == "100"
    page.set_input_files(FILES, photo)
    page.click("dialog button.main")
    page.wait_for_selector("dialog", state="detached")
    wait_until(page, "document.querySelector('.tiles img').naturalWidth === 320")
    assert page.inner_text("#view-gallery > .hint") == "5 of 5 photos"
    told = search(shop, photo)
    assert (told["id"], told["class"], told["metadata"]) == ("car 1/0.jpg", "car 1", {"price": 100})
    page.click(".tiles .thumb >> nth=0")
    wait_until(page, "document.querySelector('dialog img').naturalWidth === 320")


def test_a_photo_is_deleted_after_a_question_by_keys_alone(open_page: OpenPage, shop: Server, photo: Path) -> None:
    page = opened(open_page, shop)
    page.focus(".tiles .thumb >> nth=1")
    page.keyboard.press("Enter")
    page.focus("dialog .risky")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog .danger")
    page.keyboard.press("Enter")  # the question has the focus, and no button
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog .danger", state="detached")
    assert len(ids(shop)) == 5
    page.keyboard.press("Enter")
    page.focus("dialog .danger")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=4 of 4 photos")
    assert page.locator("dialog").count() == 0
    assert page.evaluate("document.activeElement.matches('.tiles .thumb')")
    assert page.inner_text("#live") == "car 1/1.jpg was deleted."
    assert ids(shop) == ["car 1/0.jpg", "car 1/copy.jpg", "car 2/0.jpg", "car 2/1.jpg"]
    page.click("nav >> text=Search")
    page.set_input_files("#view-search .drop input", photo)
    page.wait_for_selector(".card >> nth=3")
    page.click(".card .thumb >> nth=0")
    page.click("dialog >> text=Delete")
    page.click("dialog .danger")
    page.wait_for_selector(".card >> nth=3", state="detached")
    assert page.locator(".card").count() == len(ids(shop)) == 3


def test_only_who_may_change_the_gallery_is_offered_it(open_page: OpenPage, shop: Server, tmp_path: Path) -> None:
    for key in (SEARCHER, None):
        if key is None:
            with running_server(tmp_path / "index", tmp_path / "log2", DELTA_DIR=str(tmp_path / "delta2")) as server:
                page = opened(open_page, server, None)
                offered = page.locator("text=Add photos >> visible=true").count()
                page.click(".tiles .thumb >> nth=0")
        else:
            page = opened(open_page, shop, key)
            page.wait_for_selector(".classes summary >> text=2 classes")
            offered = page.locator("text=Add photos >> visible=true").count()
            page.click(".tiles .thumb >> nth=0")
        assert (offered, page.locator("dialog .risky").count()) == (0, 0)
    page = opened(open_page, shop, SEARCHER)
    page.click(".duplicates summary")
    page.wait_for_selector(".duplicates .problem >> text=forbidden")


@pytest.mark.parametrize(
    ("status", "code"), [(507, "gallery_full"), (403, "forbidden"), (413, "payload_too_large"), (401, "unauthorized")]
)
def test_a_refusal_shows_its_sentence_and_code(
    open_page: OpenPage, shop: Server, photo: Path, status: int, code: str
) -> None:
    page = opened(open_page, shop)
    body = {"status": status, "code": code, "detail": f"A sentence about {status}."}
    page.route(
        "**/gallery/*",
        lambda route: (
            route.fulfill(status=status, json=body) if route.request.method in ("PUT", "DELETE") else route.continue_()
        ),
    )
    page.click("text=Add photos")
    page.set_input_files(FILES, photo)
    page.click("dialog button.main")
    if status == 401:
        page.click("dialog >> nth=-1 >> text=Cancel")  # no other key
    page.wait_for_selector(f"dialog .problem >> text=A sentence about {status}.")
    assert page.inner_text("dialog .problem code") == code
    assert page.is_enabled("dialog button.main")  # it may be tried again
    page.keyboard.press("Escape")
    page.click(".tiles .thumb >> nth=0")
    page.click("dialog >> text=Delete")
    page.click("dialog .danger")
    if status == 401:
        page.click("dialog >> nth=-1 >> text=Cancel")
    page.wait_for_selector(f"dialog .problem code >> text={code}")
    assert page.inner_text("#view-gallery > .hint") == "5 of 5 photos"


def test_duplicates_stand_side_by_side_and_can_be_deleted(open_page: OpenPage, shop: Server) -> None:
    page = opened(open_page, shop)
    page.click(".duplicates summary")
    page.wait_for_selector(".duplicates >> text=Try again")
    first = page.inner_text(".pairs li >> nth=0")
    assert first.splitlines()[0] == "The same file"
    assert "car 1/0.jpg" in first
    page.click("[aria-label='Delete: car 1/copy.jpg'] >> nth=0")
    page.click("dialog .danger")
    page.wait_for_selector("text=4 of 4 photos")
    assert "car 1/copy.jpg" not in page.inner_text(".pairs")
    assert "car 1/copy.jpg" not in ids(shop)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_changes(
    open_page: OpenPage, shop: Server, photo: Path, axe: str, scheme: str
) -> None:
    page = opened(open_page, shop, color_scheme=scheme, viewport={"width": 360, "height": 740}, locale="ko-KR")
    page.click(".add")
    page.set_input_files(FILES, photo)
    page.click("dialog summary")
    found = {"add": serious(page, axe)}
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 360
    page.keyboard.press("Escape")
    page.click(".duplicates summary")
    page.wait_for_selector(".pairs li")
    found["duplicates"] = serious(page, axe)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click(".tiles .thumb >> nth=0")
    found["viewer"] = serious(page, axe)
    page.click("dialog .risky")
    found["delete"] = serious(page, axe)
    assert {view: wrong for view, wrong in found.items() if wrong} == {}
