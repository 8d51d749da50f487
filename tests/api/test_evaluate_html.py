"""Reports as pages over HTTP: for whom they are made, how they are kept, and how a browser is kept from harm."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.versions import IndexDirectory
from model.runtimes.fake import FakeRuntime
from tests.api.conftest import Gate
from tests.api.test_evaluate_http import begin_slow, cancel, status_of, when_free
from tests.support.app import AppClient, running_app
from tests.support.bodies import members_of, zip_of
from tests.support.calls import assert_problem, eventually
from tests.support.photos import car_photo

HTML = {"Accept": "text/html"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
BACKGROUND = {"Prefer": "respond-async"}


@pytest.fixture(scope="module")
def client(fake_index: IndexDirectory, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    slow: Path = tmp_path_factory.mktemp("slow")
    (slow / "car 1").mkdir()
    for number in range(2 * FakeRuntime.batch):
        (slow / "car 1" / f"{number:03}.png").write_bytes(Gate.photo + str(number).encode())
    settings: dict[str, Any] = {"datasets": {"demo": gallery, "slow": slow}}
    with running_app(fake_index.root, state_dir=tmp_path_factory.mktemp("state"), **settings) as running:
        yield running


def evaluated(client: AppClient, headers: dict[str, str], **query: Any) -> httpx.Response:
    return when_free(lambda: client.post("/evaluate", params=query, json={"dataset": "demo"}, headers=headers))


def done(client: AppClient, begun: httpx.Response) -> str:
    assert begun.status_code == 202, begun.text
    location: str = begun.headers["location"]
    eventually(lambda: status_of(client, location) == "done", "the evaluation is done")
    return location


def assert_page(answer: httpx.Response) -> None:
    """A whole page that a browser may show and that can do nothing there."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!DOCTYPE html>")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; frame-ancestors 'none'; default-src 'none'")
    assert "script" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith('inline; filename="evaluation-')


def test_whoever_asks_for_html_gets_a_page_and_all_others_json(client: AppClient) -> None:
    page = evaluated(client, HTML)
    assert_page(page)
    assert "Evaluation of <bdi>demo</bdi>" in page.text
    assert "data:image/webp;base64," in page.text
    for accept in ("*/*", "application/json", "application/json, text/html", "text/html;q=0", "text/plain"):
        assert evaluated(client, {"Accept": accept}).json()["total"] == 12


def test_an_uploaded_archive_has_a_page_with_its_photos(client: AppClient, gallery: Path) -> None:
    archive = zip_of(members_of(gallery))
    page = when_free(lambda: client.post("/evaluate", files={"archive": ("set", archive)}, headers=HTML))
    assert_page(page)
    assert "Evaluation of <bdi>an uploaded archive</bdi>" in page.text
    assert "The photo is no longer there" not in page.text


def test_against_the_gallery_the_page_shows_the_gallery_s_photos(client: AppClient) -> None:
    archive = zip_of({f"car {kind}/new.jpg": car_photo(kind, 77) for kind in (1, 2, 8)})

    def ask() -> httpx.Response:
        return client.post("/evaluate?mode=gallery", files={"archive": ("set", archive)}, headers=HTML)

    page = when_free(ask)
    assert_page(page)
    assert "each compared with the gallery" in page.text
    assert "The photo is no longer there" not in page.text


def test_in_the_background_the_page_is_at_the_same_address_as_the_record(client: AppClient) -> None:
    begun = evaluated(client, HTML | BACKGROUND)
    location = done(client, begun)
    assert begun.json()["html"] is False
    record = client.get(location).json()
    assert (record["html"], record["report"]["total"]) == (True, 12)
    for accept in (HTML, BROWSER):
        assert_page(client.get(location, headers=accept))
    assert record["id"] in client.get(location, headers=HTML).headers["content-disposition"]
    assert client.get(location, headers={"Accept": "application/json"}).json() == record


def test_an_evaluation_without_a_page_says_so(client: AppClient, gate: Gate) -> None:
    location = done(client, evaluated(client, BACKGROUND))
    assert client.get(location).json()["html"] is False
    assert_problem(client.get(location, headers=HTML), "not_acceptable")
    assert "made where POST /evaluate was sent with Accept: text/html" in client.get(location, headers=HTML).text
    assert client.get(location, headers=BROWSER).json()["status"] == "done"  # JSON is better than nothing
    assert_problem(client.get(f"/evaluations/{'0' * 32}", headers=HTML), "unknown_evaluation")
    running = begin_slow(client, gate)
    assert "not done yet" in client.get(running, headers=HTML).json()["detail"]
    cancel(client, running, gate)
