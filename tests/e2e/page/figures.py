"""python -m tests.e2e.page.figures: how soon the page is there and shows an answer, over the gallery that ships."""

from statistics import median
from typing import TYPE_CHECKING

from tests.e2e.page.__main__ import search_page
from tests.e2e.page.conftest import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

LOADS, SEARCHES = 5, 20
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
SENT = """performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))
    .filter((one) => !new URL(one.name).pathname.endsWith('/image'))
    .reduce((sum, one) => sum + one.transferSize, 0)"""
WATCH = """const painted = () => requestAnimationFrame(() => setTimeout(() => shown.push(performance.now())));
    window.shown = [];
    const changed = () => document.querySelector('.found:not(.old) .card') && painted();
    new MutationObserver(changed).observe(document.body, { childList: true, subtree: true, attributes: true });"""
SHOWN = """(() => {
    const asked = performance.getEntriesByType('resource').filter((one) => one.name.includes('/search?')).at(-1);
    return window.shown[0] - asked.responseEnd;
})()"""


def load(page: "Page") -> tuple[float, int]:
    """Milliseconds to the first paint of a cold load, and all bytes that were sent but photos."""
    fresh = page.context.browser.new_page()  # type: ignore[union-attr]
    fresh.goto(page.url)
    fresh.wait_for_selector(".samples img")
    found = fresh.evaluate(PAINT), fresh.evaluate(SENT)
    fresh.close()
    return found


def main() -> None:
    """Prints medians of cold loads and of searches."""
    with search_page() as (page, query):
        loads = [load(page) for _ in range(LOADS)]
        shown_ms = []
        for _ in range(SEARCHES):
            page.reload()
            page.wait_for_selector(".samples img")
            page.evaluate(WATCH)
            page.set_input_files("#view-search .drop input", query)
            wait_until(page, "window.shown.length > 0")
            shown_ms.append(page.evaluate(SHOWN))
    print(f"first paint {median(paint for paint, _ in loads):.0f} ms, {max(sent for _, sent in loads)} bytes sent")  # noqa: T201
    print(f"answer shown {median(shown_ms):.0f} ms after its last byte, at most {max(shown_ms):.0f} ms")  # noqa: T201


if __name__ == "__main__":
    main()
