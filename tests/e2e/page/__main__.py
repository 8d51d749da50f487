"""python -m tests.e2e.page: takes docs/images/page.webp, search.webp and report.webp, of the gallery that ships."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURE = ROOT / "docs" / "images" / "page.webp"
RECORDING = PICTURE.with_name("search.webp")
REPORT = PICTURE.with_name("report.webp")
SIZE = {"width": 1280, "height": 800}
REPORT_SIZE = {"width": 1280, "height": 1118}


@contextmanager
def search_page() -> Iterator[tuple["Page", Path]]:
    """The page over the demo's gallery, and the demo's first query."""
    query = DemoGallery.load().directory / DemoGallery.load().queries[0].file
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        index = demo_index(Path(folder), classes=100)
        with running_server(index.root, Path(folder) / "log") as server:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE, locale="en-GB")  # type: ignore[arg-type]
            page.goto(server.url)
            page.wait_for_selector(".samples img")
            yield page, query
            browser.close()


def search(page: "Page", query: Path) -> None:
    """Searches, and waits for the pictures in sight."""
    page.set_input_files("#view-search .drop input", query)
    page.wait_for_selector(".card")
    shown = "[...document.querySelectorAll('.card img')].slice(0, 8).every((image) => image.naturalWidth > 0)"
    wait_until(page, shown)


def take() -> bytes:
    """A PNG of the page with the answer to the query."""
    with search_page() as (page, query):
        search(page, query)
        return page.screenshot()


def record() -> list[tuple[bytes, int]]:
    """PNGs of a search: a photo is dropped, the answer, the nearest photo, and its heat faded out and in.

    Each comes with its milliseconds.
    """
    with search_page() as (page, query):
        frames = [(page.screenshot(), 1200)]
        page.evaluate("document.querySelector('#view-search .drop').classList.add('over')")  # a photo is held over it
        frames.append((page.screenshot(), 600))
        search(page, query)
        frames.append((page.screenshot(), 2200))
        page.hover(".card .thumb >> nth=0")
        frames.append((page.screenshot(), 500))
        page.click(".card .thumb >> nth=0")
        page.wait_for_selector(".fade input")
        wait_until(page, "document.querySelectorAll('.seen canvas').length === 2")
        frames.append((page.screenshot(), 1500))
        for heat in (*range(70, -1, -10), *range(10, 101, 10)):
            page.fill(".fade input", str(heat))
            frames.append((page.screenshot(), 2000 if heat == 100 else 90))
        return frames


def save_recording(frames: list[tuple[bytes, int]], path: Path) -> None:
    """Writes an animated WebP of three quarters of the size."""
    pictures = [Image.open(io.BytesIO(png)).convert("RGB") for png, _ in frames]
    small = [one.resize((one.width * 3 // 4, one.height * 3 // 4), Image.Resampling.LANCZOS) for one in pictures]
    durations_ms = [duration_ms for _, duration_ms in frames]
    # Every picture is a whole one: differences to the one before show as blocks.
    options: dict[str, Any] = {"duration": durations_ms, "loop": 0, "quality": 75, "method": 6, "kmin": 0, "kmax": 1}
    small[0].save(path, save_all=True, append_images=small[1:], **options)


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
    save_recording(record(), RECORDING)
    print(f"{RECORDING}: {RECORDING.stat().st_size} bytes")
