"""The page's search: every way in, what the answer says, filters, crop, more like this."""

import json
import re
import shlex
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.page.conftest import CHOOSE, HOSTILE, OpenPage, wait_until
from tests.support.servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GIVE = """([type, base64]) => {
    const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "car.jpg", { type: "image/jpeg" }));
    const common = { bubbles: true, cancelable: true };
    const event = type === "paste" ? new ClipboardEvent("paste", { clipboardData: data, ...common })
        : new DragEvent("drop", { dataTransfer: data, ...common });
    document.querySelector("#view-search").dispatchEvent(event);
}"""


def classes(page: "Page") -> list[str]:
    """The headings of the groups of hits."""
    page.wait_for_selector(".found:not(.old) .group")
    return [heading.evaluate("one => one.firstChild.textContent") for heading in page.query_selector_all(".group h3")]


def asked(page: "Page", act: object) -> dict[str, list[str]]:
    """The query of the search that an action sends."""
    with page.expect_response(re.compile("/search")) as answer:
        act()  # type: ignore[operator]
    return parse_qs(urlsplit(answer.value.url).query)


@pytest.mark.parametrize("way", ["choose", "paste", "drop"])
def test_a_photo_comes_in_and_its_class_and_cars_come_out(
    open_page: OpenPage, cars: Server, photo: Path, way: str
) -> None:
    page = open_page(cars.url)
    if way == "choose":
        page.set_input_files(CHOOSE, photo)
    else:
        page.evaluate(GIVE, [way, b64encode(photo.read_bytes()).decode()])
    assert classes(page)[0] == "car 1"
    assert page.inner_text(".verdict h2") in ("car 1", "Not sure", "No car")
    assert page.locator(".card").count() == 10
    assert page.evaluate("document.querySelector('.query-photo img').naturalWidth") == 320
    wait_until(page, "[...document.querySelectorAll('.card img')].some((image) => image.naturalWidth > 0)")
    assert "5 photos" in page.inner_text(".group h3 >> nth=0")
    assert page.inner_text("#live")


def test_the_camera_s_input_takes_a_photo(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    assert page.is_visible("text=Take a photo")
    page.set_input_files("input[capture=environment]", photo)
    assert classes(page)[0] == "car 1"


@pytest.mark.parametrize(
    ("outcome", "title", "sentence"),
    [
        ("class", "car 1", "Probability 97%: very likely"),
        ("unsure", "Not sure", "Most likely car 1"),
        ("not_a_car", "No car", "the probability of one is 12%"),
    ],
)
def test_the_answer_is_said_first_and_in_words(
    open_page: OpenPage, cars: Server, outcome: str, title: str, sentence: str
) -> None:
    page = open_page(cars.url)
    decision = {"class": "car 1", "probability": 0.97, "agreement": 0.8, "car_probability": 0.12, "outcome": outcome}
    page.route("**/search?*", lambda route: route.fulfill(json={**route.fetch().json(), "decision": decision}))
    page.click(".samples button >> nth=0")
    assert page.inner_text(".verdict h2") == title
    assert sentence in page.inner_text(".verdict")
    assert page.inner_text("#live").startswith(title)
    assert page.locator(".verdict, .group").nth(0).get_attribute("class") == f"verdict {outcome}"


def test_options_narrow_the_answer(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    page.set_input_files(CHOOSE, photo)
    classes(page)
    page.click("text=Options")
    page.fill("text=Photos to find", "3")
    page.fill("#view-search input[type=search] >> nth=0", "CAR 2")
    page.fill("#view-search input[type=search] >> nth=1", "price < 100000")
    sent = asked(page, lambda: page.click("text=Apply >> visible=true"))
    assert sent == {"k": ["3"], "class": ["car 2"], "where": ["price < 100000"]}
    assert classes(page) == ["car 2"]
    assert page.inner_text(".verdict h2") == "No class named"
    page.fill("#view-search input[type=search] >> nth=1", "pric < 1")
    page.click("text=Apply >> visible=true")
    assert "did you mean price" in page.inner_text(".problem p")
    assert page.inner_text(".problem code") == "invalid_filter"


def test_more_like_this_searches_by_id(open_page: OpenPage, cars: Server) -> None:
    page = open_page(cars.url)
    page.click(".samples button >> nth=0")
    first = classes(page)[0]
    with page.expect_request(re.compile("/search")) as request:
        page.click("text=More like this >> nth=0")
    assert json.loads(request.value.post_data or "")["id"].startswith(f"{first}/")
    page.wait_for_selector(".found:not(.old) .card")
    page.click(".card .thumb >> nth=0")
    page.wait_for_selector("dialog img")
    assert "price" in page.inner_text("dialog dl")
    page.click("dialog >> text=More like this")
    page.wait_for_selector("dialog", state="detached")
    page.wait_for_selector("text=Cars like this one")


def test_a_part_of_the_photo_is_searched_for(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    page.set_input_files(CHOOSE, photo)
    classes(page)
    page.click("text=Crop")
    box = page.locator(".crop-layer").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.up()
    (text,) = asked(page, lambda: page.click("text=Search for this part"))["box"]
    x, y, width, height = map(int, text.split(","))
    assert x <= 3
    assert y <= 3
    assert abs(width - 159) <= 4
    assert abs(height - 119) <= 4
    page.focus(".crop")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    (moved,) = asked(page, lambda: page.click("text=Search for this part"))["box"]
    assert moved == f"{x + 6},{y},{width},{height + 6}"
    assert "box" not in asked(page, lambda: page.click("text=Whole photo"))


def test_the_command_that_is_shown_does_the_same(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url)
    page.set_input_files(CHOOSE, photo)
    classes(page)
    page.click("text=This search in code")
    command = page.inner_text(".copy code")
    assert shlex.split(command) == ["curl", "-F", "file=@my car.jpg", f"{cars.url}/search?k=10"]
    done = subprocess.run(["bash", "-c", f"{command} -sS"], cwd=photo.parent, capture_output=True, check=True)
    assert json.loads(done.stdout)["nearest"]["class"] == "car 1"


def test_a_file_that_is_no_photo_is_told_in_a_sentence_with_its_code(
    open_page: OpenPage, cars: Server, tmp_path: Path
) -> None:
    (tmp_path / "notes.jpg").write_text("not a photo")
    page = open_page(cars.url)
    page.set_input_files(CHOOSE, tmp_path / "notes.jpg")
    assert "is not a JPEG" in page.inner_text(".problem p")
    assert page.inner_text(".problem code") == "unsupported_image_format"
    page.wait_for_selector("text=This browser cannot show the photo")


def test_078_a_hostile_name_of_a_class_stays_text(open_page: OpenPage, cars: Server) -> None:
    page = open_page(cars.url, "#gallery")
    page.click("summary >> text=5 classes")
    page.click(f".chip:has-text('{HOSTILE}')")
    page.wait_for_selector("text=5 of 5 photos")
    page.click(".tiles .thumb >> nth=0")
    assert HOSTILE in page.inner_text("dialog figcaption")
    page.click("dialog >> text=More like this")
    assert HOSTILE in classes(page)
    assert page.title() == "Search · carsearch"
    assert page.locator("img[src=x]").count() == 0


def test_korean_readers_read_korean(open_page: OpenPage, cars: Server, photo: Path) -> None:
    page = open_page(cars.url, locale="ko-KR")
    assert page.inner_text("h1 >> visible=true") == "이 차는 무엇일까요?"
    assert page.get_attribute("html", "lang") == "ko"
    page.set_input_files(CHOOSE, photo)
    page.wait_for_selector("h2:text-is('가장 비슷한 자동차')")
    page.click(".card .thumb >> nth=0")
    page.get_by_role("slider", name="사진 위 열지도 농도(%)").wait_for()
    assert re.search("[A-Za-z]{4}", page.inner_text(".why")) is None
    page.keyboard.press("Escape")
    for view in ("gallery", "evaluate", "status"):
        page.goto(f"{cars.url}/#{view}")
        assert re.search("[가-힣]", page.inner_text("h1 >> visible=true"))
