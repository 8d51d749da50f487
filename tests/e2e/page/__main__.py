"""python -m tests.e2e.page: takes docs/images/page.webp from the page over the gallery that ships."""

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from service.demo.gallery import DemoGallery
from tests.conftest import ROOT
from tests.e2e.page.conftest import wait_until
from tests.support.demo_index import demo_index
from tests.support.servers import running_server

PICTURE = ROOT / "docs" / "images" / "page.webp"
SIZE = {"width": 1280, "height": 800}


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


if __name__ == "__main__":
    Image.open(io.BytesIO(take())).save(PICTURE, quality=82, method=6)
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")
