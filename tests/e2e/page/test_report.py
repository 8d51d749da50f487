"""The report for people in a browser: offline, on phones, in the dark, for screen readers, and from the page."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from indexer.benchmark.compare import compare, read_earlier
from indexer.benchmark.evaluate import evaluate
from model.embedder import Embedder
from service.report.build import Subject, report_html
from tests.e2e.page.conftest import HOSTILE, OpenPage, serious
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import Server, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OpenReport = Callable[..., "Page"]


def set_with_errors(root: Path) -> Path:
    """Photos of five classes, one with a hostile name; some lie in the wrong folder, one is there twice."""
    write_gallery(root, classes=4, photos=6)
    (root / HOSTILE).mkdir()
    for shot in range(6):
        (root / HOSTILE / f"{shot}.jpg").write_bytes(car_photo(9, shot))
    for kind in (1, 2):
        (root / HOSTILE / f"moved {kind}.jpg").write_bytes(car_photo(kind, 50))
    (root / "car 1" / "copy.jpg").write_bytes(car_photo(1, 0))
    (root / "car 1" / "broken.jpg").write_text("no photo")
    return root


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, shipped_embedder: Embedder) -> Path:
    """A report with everything that one may have."""
    folder = tmp_path_factory.mktemp("report")
    photos = set_with_errors(folder / "photos")
    before = evaluate(photos, shipped_embedder).to_json()
    (photos / "car 3" / "0.jpg").write_bytes(car_photo(2, 70))
    (folder / "before.json").write_text(json.dumps(before), encoding="utf-8")
    evaluation = evaluate(photos, shipped_embedder, details=True)
    comparison = compare(evaluation, read_earlier(folder / "before.json"))
    subject = Subject(HOSTILE, datetime.now(UTC))
    path = folder / "report.html"
    path.write_text(report_html(evaluation, shipped_embedder, subject, comparison=comparison), encoding="utf-8")
    return path


@pytest.fixture
def open_report(browser: "Browser", report: Path) -> Iterator[OpenReport]:
    """Opens the file without a network; it may ask for nothing and print nothing."""
    contexts, wrong = [], []

    def opened(**options: Any) -> "Page":
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if asks_elsewhere(request.url) else None)
        page.goto(report.as_uri())
        return page

    def asks_elsewhere(address: str) -> bool:
        return not address.startswith(("data:", report.as_uri()))

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def test_the_file_opens_offline_with_all_of_its_pictures(open_report: OpenReport) -> None:
    page = open_report()
    assert "the most similar photo shows the right class" in page.inner_text("h1")
    assert HOSTILE in page.inner_text(".eyebrow")
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    assert page.evaluate("document.images.length") > 40
    assert page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length") == 0
    for heading in ("What changed since", "Class by class", "Most often confused", "The worst errors", "Health"):
        assert page.locator("h2", has_text=heading).count() == 1
    page.click("text=Weakest class")
    assert page.url.endswith("#classes")


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_is_wider_than_the_screen(open_report: OpenReport, width: int) -> None:
    page = open_report(viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_report: OpenReport, axe: str, scheme: str) -> None:
    page = open_report(color_scheme=scheme)
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 18, 22)") == (scheme == "dark")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert serious(page, axe) == []


def zipped(root: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(root.rglob("*.jpg")):
            archive.write(path, path.relative_to(root))
    return buffer.getvalue()


def test_the_page_opens_the_report_of_a_zip(open_page: OpenPage, cars: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(zipped(set_with_errors(tmp_path / "photos")))
    page = open_page(cars.url, "#evaluate")
    page.set_input_files("#view-evaluate .drop input", tmp_path / "set.zip")
    page.wait_for_selector(".figures")
    with page.expect_popup() as popup:
        page.click("text=Open the report with pictures")
    popup.value.wait_for_selector("h1")
    assert popup.value.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert popup.value.evaluate("document.images.length") > 20
    assert popup.value.evaluate("getComputedStyle(document.querySelector('.figures')).display") == "grid"
    popup.value.close()


def test_with_a_key_the_report_is_saved(open_page: OpenPage, real_index: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-long-secret-for-the-tests admin-of-cars admin\n")
    photos = set_with_errors(tmp_path / "photos")
    with running_server(
        real_index.root, tmp_path / "log", KEYS_FILE=str(keys), DATASETS=f'{{"mine": "{photos}"}}'
    ) as server:
        page = open_page(server.url, "#evaluate")
        page.fill("dialog input", "a-long-secret-for-the-tests")
        page.click("dialog button.main")
        page.click("text=Evaluate the set “mine”")
        page.wait_for_selector(".figures")
        with page.expect_download() as download:
            page.click("text=Open the report with pictures")
        assert download.value.suggested_filename.endswith(".html")
        assert Path(download.value.path()).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
