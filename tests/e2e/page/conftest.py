"""A browser for the page: Debian's Chromium, driven by Playwright, against real servers.

Every page that a test opens must ask no other origin, break no rule of its policy and print no error.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.embedder import Embedder
from tests.support.calls import eventually
from tests.support.made_once import made_once
from tests.support.photos import car_photo, write_gallery
from tests.support.servers import Server, running_server

if TYPE_CHECKING:  # the slim set lacks it, and pytest imports this file there too
    from playwright.sync_api import Browser, Page

AXE = "axe-core@4.14.1"
HOSTILE = '<img src=x onerror="document.title=1">'
"""A class named as attackers would."""

REPORT_VIOLATIONS = "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.violatedDirective))"

CHOOSE = "#view-search .drop input"
"""The input that takes a photo to search for."""

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium, for one module: while it runs, nothing else in this process can run an event loop."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[OpenPage]:
    """Opens a server's page in a fresh context; options are those of Playwright's contexts."""
    contexts, wrong = [], []

    def opened(url: str, fragment: str = "", **options: Any) -> "Page":
        context = browser.new_context(**options)
        contexts.append(context)
        context.add_init_script(REPORT_VIOLATIONS)
        page = context.new_page()

        def printed(text: str) -> None:
            if not text.startswith("Failed to load resource"):  # what a test makes the server answer
                wrong.append(text)

        def asked(address: str) -> None:
            if not address.startswith((f"{url}/", f"blob:{url}/")):
                wrong.append(address)

        page.on("console", lambda message: printed(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked(request.url))
        page.goto(f"{url}/{fragment}")
        page.wait_for_selector("h1:visible")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def wait_until(page: "Page", expression: str) -> None:
    """Waits until an expression is true; Playwright's own way to wait for one is against the page's policy."""
    eventually(lambda: bool(page.evaluate(expression)), expression)


@pytest.fixture(scope="session")
def cars(tmp_path_factory: pytest.TempPathFactory, shipped_embedder: Embedder) -> Iterator[Server]:
    """A server over five classes, one with a hostile name, with prices and colours."""
    folder = tmp_path_factory.mktemp("page")
    gallery = write_gallery(folder / "gallery", classes=4, photos=5)
    (gallery / HOSTILE).mkdir()
    for shot in range(5):
        (gallery / HOSTILE / f"{shot}.jpg").write_bytes(car_photo(9, shot))
    rows = [path.relative_to(gallery) for path in sorted(gallery.rglob("*.jpg"))]
    table = [f'"{str(row).replace(chr(34), chr(34) * 2)}",{1000 * number},red' for number, row in enumerate(rows)]
    (gallery / "photos.csv").write_text("\n".join(["path,price,colour", *table]), encoding="utf-8")
    index = IndexDirectory(folder / "index")
    build_index(gallery, index, shipped_embedder)
    with running_server(index.root, folder / "log", DATASETS=f'{{"mine": "{gallery}"}}') as server:
        yield server


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo that no gallery has, of class "car 1"."""
    path = tmp_path / "my car.jpg"
    path.write_bytes(car_photo(1, 99, (320, 240)))
    return path


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, from npm."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")

    def install(folder: Path) -> None:
        folder.mkdir()
        subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), AXE], check=True, timeout=300)

    script = made_once("axe-core", install, AXE.rpartition("@")[2]) / "node_modules" / "axe-core" / "axe.min.js"
    return script.read_text(encoding="utf-8")


def serious(page: "Page", axe: str) -> list[str]:
    """What axe finds serious or critical in what is shown now."""
    page.evaluate(axe)
    found = page.evaluate("axe.run().then((result) => result.violations)")
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
    ]
