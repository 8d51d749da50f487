"""The page at `/` as files over HTTP, and the gallery's pictures in several widths."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from service.http.routes.page import KINDS, POLICY, web_files
from tests.support.app import AppClient, running_app
from tests.support.calls import assert_problem
from tests.support.photos import car_pixels, encoded

MAX_BYTES = 120_000


def test_the_page_and_its_files_come_with_their_types_and_the_policy(api_client: AppClient) -> None:
    page = api_client.get("/")
    assert page.text.startswith("<!doctype html>")
    for answer in (page, *(api_client.get(f"/web/{name}") for name in web_files())):
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["content-type"] in KINDS.values()
        assert answer.headers["cache-control"] == "no-cache"
    assert_problem(api_client.get("/web/none.js"), "not_found")
    assert_problem(api_client.get("/web/..%2Fapp.py"), "not_found")
    assert api_client.request("HEAD", "/").status_code == 200


def test_a_file_that_the_browser_has_is_not_sent_again(api_client: AppClient) -> None:
    for path in ("/", "/web/app.js"):
        tag = api_client.get(path).headers["etag"]
        again = api_client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content) == (304, b"")


def test_the_page_is_small_and_has_no_code_or_style_in_its_html() -> None:
    files = web_files()
    assert sum(len(file.data) for file in files.values()) <= MAX_BYTES
    text = files["index.html"].data.decode()
    assert "<style" not in text
    assert "style=" not in text
    assert text.count("<script") == text.count('<script type="module" src="web/')


@pytest.mark.parametrize("name", sorted(web_files()))
def test_no_file_puts_text_in_as_html_or_names_another_origin(name: str) -> None:
    text = web_files()[name].data.decode().replace("http://www.w3.org/2000/svg", "")
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"):
        assert forbidden not in text


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory, fake_embedder: Embedder) -> Iterator[AppClient]:
    """A gallery of a wide photo, a high one, a small one, and one that lies on its side by its EXIF orientation."""
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "gallery" / "car").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, size, options in (
        ("wide", (1600, 800), {}),
        ("high", (300, 3000), {}),
        ("small", (96, 72), {}),
        ("turned", (1600, 800), {"exif": turned}),
    ):
        photo = encoded(Image.fromarray(car_pixels(1, 1, size)), "JPEG", **options)
        (folder / "gallery" / "car" / f"{name}.jpg").write_bytes(photo)
    index = IndexDirectory(folder / "index")
    build_index(folder / "gallery", index, fake_embedder)
    with running_app(index.root) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "width", "size"),
    [
        ("wide", None, (1024, 512)),
        ("wide", 32, (160, 80)),
        ("wide", 160, (160, 80)),
        ("wide", 161, (320, 160)),
        ("wide", 640, (640, 320)),
        ("wide", 641, (1024, 512)),
        ("high", None, (102, 1024)),
        ("high", 320, (102, 1024)),
        ("small", 320, (96, 72)),
        ("turned", None, (512, 1024)),
        ("turned", 320, (320, 640)),
    ],
)
def test_a_picture_has_the_next_of_a_few_widths(
    sizes: AppClient, name: str, width: int | None, size: tuple[int, int]
) -> None:
    params = {} if width is None else {"width": width}
    image = Image.open(io.BytesIO(sizes.get(f"/gallery/car/{name}.jpg/image", params=params).content))
    assert (image.format, image.size) == ("JPEG", size)


def test_each_width_has_a_tag_of_its_own(sizes: AppClient) -> None:
    path = "/gallery/car/wide.jpg/image"
    tags = {width: sizes.get(f"{path}?width={width}").headers["etag"] for width in (100, 160, 320, 640, 1024)}
    assert tags[100] == tags[160]
    assert len({*tags.values(), sizes.get(path).headers["etag"]}) == 5
    for asked, status in ((150, 304), (320, 200)):
        answer = sizes.get(f"{path}?width={asked}", headers={"If-None-Match": tags[160]})
        assert (answer.status_code, bool(answer.content)) == (status, status == 200)


@pytest.mark.parametrize("width", ["31", "1025", "0", "-1", "x", "99999999999999999999"])
def test_other_widths_are_refused(sizes: AppClient, width: str) -> None:
    assert_problem(sizes.get(f"/gallery/car/wide.jpg/image?width={width}"), "invalid_request")


def test_the_status_tells_since_when_it_serves(api_client: AppClient, tmp_path: Path) -> None:
    assert api_client.get("/info").json()["serving_since"].endswith("Z")
    with running_app(tmp_path, wait_ready=False) as empty:
        assert empty.get("/info").json()["serving_since"] is None
