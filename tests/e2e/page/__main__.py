"""python -m tests.e2e.page: takes docs/images/page.webp and report.webp, of the gallery that ships."""

import io
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from indexer.benchmark.evaluate import evaluate
from model.embedder import Embedder
from service.demo.gallery import DemoGallery
from service.report.build import Subject, report_html
from tests.conftest import ROOT
from tests.e2e.page.conftest import wait_until
from tests.support.demo_index import demo_index
from tests.support.servers import running_server

PICTURE = ROOT / "docs" / "images" / "page.webp"
REPORT = PICTURE.with_name("report.webp")
SIZE = {"width": 1280, "height": 800}
REPORT_SIZE = {"width": 1280, "height": 1118}


def take() -> bytes:
    """A PNG of the page with the answer to the demo's first query."""
    query = DemoGallery.load().directory / DemoGallery.load().queries[0].file
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        index = demo_index(Path(folder), classes=100)
        with running_server(index.root, Path(folder) / "log") as server:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE, locale="en-GB")  # type: ignore[arg-type]
            page.goto(server.url)
            page.set_input_files("#view-search .drop input", query)
            page.wait_for_selector(".card")
            shown = "[...document.querySelectorAll('.card img')].slice(0, 8).every((image) => image.naturalWidth > 0)"
            wait_until(page, shown)
            picture = page.screenshot()
            browser.close()
            return picture


def take_report() -> bytes:
    """A PNG of the beginning of the report on the demo's gallery, and of its first errors."""
    embedder = Embedder.load("resnet18", "openvino")
    evaluation = evaluate(DemoGallery.load().photos, embedder, details=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "report.html"
        path.write_text(report_html(evaluation, embedder, Subject("the demo's gallery", datetime.now(UTC))))
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=REPORT_SIZE)  # type: ignore[arg-type]
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('main > :not(header, #errors)').forEach((part) => part.remove())")
        picture = page.screenshot()
        browser.close()
        return picture


if __name__ == "__main__":
    for target, taken in ((PICTURE, take()), (REPORT, take_report())):
        Image.open(io.BytesIO(taken)).save(target, quality=82, method=6)
        print(f"{target}: {target.stat().st_size} bytes")
