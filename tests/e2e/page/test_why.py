"""Why a result matches: the heat over both photos, the slider, what is said when there is none."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from indexer.versions import IndexDirectory
from tests.e2e.page.conftest import CHOOSE, OpenPage
from tests.support.servers import Server, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MAPS = ".seen canvas"
PIXEL = """(canvas, [x, y]) => [...canvas.getContext("2d").getImageData(x, y, 1, 1).data]"""
PLACE = """(canvas) => {
    const [inner, outer] = [canvas, canvas.parentElement].map((one) => one.getBoundingClientRect());
    return [(inner.x - outer.x) / outer.width, (inner.y - outer.y) / outer.height,
        inner.width / outer.width, inner.height / outer.height];
}"""


def search_explained(page: "Page", photo: Path, crop: bool = False, **explanation: Any) -> None:
    """Searches for a photo, or the middle of it, and opens the nearest one, which matches for a reason made up here."""
    page.set_input_files(CHOOSE, photo)
    page.wait_for_selector(".card")
    if crop:
        page.click("text=Crop")
    with page.expect_response(re.compile("/search")) as answer:
        page.click("text=Search for this part") if crop else page.click("text=More like this >> nth=0")
    found = answer.value.json()
    for hit in found["results"]:
        hit["explanation"] = explanation or None
    page.route("**/search?*explain=true", lambda route: route.fulfill(json=found))
    page.click(".found:not(.old) .card .thumb >> nth=0")


def open_first(page: "Page", photo: Path) -> None:
    """Searches for a photo and opens the nearest one."""
    page.set_input_files(CHOOSE, photo)
    page.click(".card .thumb >> nth=0")


def test_both_photos_show_what_made_them_alike(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "explain" in request.url else None)
    open_first(page, photo)
    page.wait_for_selector(".fade input")
    score = page.inner_text("dialog figcaption >> nth=1").rpartition(" ")[2]
    assert f"the similarity is {score}" in page.inner_text(".why")
    assert page.locator(MAPS).count() == 2
    assert "hottest" in (page.get_attribute(f"{MAPS} >> nth=0", "aria-label") or "")
    page.keyboard.press("Escape")
    page.click(".card .thumb >> nth=4")
    page.wait_for_selector(".fade input")
    page.keyboard.press("Escape")
    assert len(asked) == 1  # it tells all five
    assert page.locator(".card >> text=Why?").count() == 5
    page.click(".card .thumb >> nth=5")
    assert page.locator("dialog .seen").count() == 2
    assert page.inner_text(".why") == ""


def test_the_slider_fades_between_photo_and_heat_by_keys(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    open_first(page, photo)
    slider = page.get_by_role("slider", name="Heat map over the photos, in percent")
    for key, opacity, filtered in (
        ("End", "1", "grayscale(1) brightness(0.6)"),
        ("Home", "0", "grayscale(0) brightness(1)"),
    ):
        slider.press(key)
        for side in (0, 1):
            assert page.locator(MAPS).nth(side).evaluate("one => getComputedStyle(one).opacity") == opacity
            assert page.locator(".seen img").nth(side).evaluate("one => getComputedStyle(one).filter") == filtered


def test_heat_has_one_scale_and_lies_where_the_model_looked(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    search_explained(page, photo, query=[[0.4, -0.2], [0, 0]], hit=[[0, 0], [0, 0.2]], constant=0.125, square=None)
    query, hit = page.locator(MAPS).nth(0), page.locator(MAPS).nth(1)
    assert query.evaluate(PIXEL, [0, 0]) == [252, 255, 164, 204]  # the most there is: four fifths of the photo
    assert query.evaluate(PIXEL, [127, 0])[3] == 0  # what counts against the match
    assert hit.evaluate(PIXEL, [127, 127])[3] == 102  # half of the most
    assert query.evaluate(PLACE) == pytest.approx([0, 0, 1, 1])
    assert "add up to 0.200, with 0.125 that is of no place; the similarity" in page.inner_text(".why")


def test_heat_lies_on_the_box_and_on_the_square_that_the_model_cuts(
    open_page: OpenPage, cars: Server, photo: Path
) -> None:
    page = open_page(cars.url)
    search_explained(page, photo, crop=True, query=[[1]], hit=[[1]], constant=0, square=0.5)
    # The box at first is the middle 256 by 192 pixels of 320 by 240.
    assert page.locator(MAPS).nth(0).evaluate(PLACE) == pytest.approx(
        [112 / 320, 72 / 240, 96 / 320, 96 / 240], abs=0.01
    )
    # A photo of the gallery has no box; the square is half of its height.
    x, y, width, height = page.locator(MAPS).nth(1).evaluate(PLACE)
    assert [y, height] == pytest.approx([0.25, 0.5], abs=0.01)
    assert x + width / 2 == pytest.approx(0.5, abs=0.01)


def test_a_photo_that_is_gone_has_a_sentence(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    search_explained(page, photo)
    page.wait_for_selector(".why >> text=no longer as it was indexed")


def test_a_busy_server_and_a_failure_are_told_in_the_dialog(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    refused: list[str] = []

    def refuse(route: "Route") -> None:
        refused.append(route.request.url)
        if len(refused) == 1:
            body = {"status": 429, "code": "overloaded", "detail": "Try again in a moment."}
            route.fulfill(status=429, headers={"Retry-After": "1"}, json=body)
        elif len(refused) == 2:
            body = {"status": 503, "code": "deadline_exceeded", "detail": "The answer was not ready in time."}
            route.fulfill(status=503, json=body)
        else:
            route.continue_()

    page.route("**/search?*explain=true", refuse)
    open_first(page, photo)
    page.wait_for_selector(".why >> text=trying again in 1 s")
    page.wait_for_selector(".why >> text=deadline_exceeded")
    page.click(".why >> text=Try again")
    page.wait_for_selector(".fade input")


def test_a_search_without_parameters_is_explained_too(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    page.wait_for_selector("#view-search input[type=number]", state="attached")
    page.evaluate("document.querySelector('#view-search input[type=number]').value = ''")
    open_first(page, photo)
    page.wait_for_selector(".fade input")


def test_a_model_that_cannot_explain_says_so(
    open_page: OpenPage, fake_index: IndexDirectory, photo: Path, tmp_path: Path
) -> None:
    with running_server(fake_index.root, tmp_path / "log") as server:
        page = open_page(server.url)
        open_first(page, photo)
        assert "This model cannot explain its matches" in page.inner_text(".why .problem p")
        assert page.inner_text(".why code") == "explanation_unavailable"
        assert page.locator(".why >> text=Try again").count() == 0
        page.click("dialog >> text=More like this")
        page.wait_for_selector("text=Cars like this one")
