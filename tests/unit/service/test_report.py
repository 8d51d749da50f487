"""The report for people: what it says, that names in it stay text, and that it needs nothing from elsewhere."""

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from indexer.benchmark.compare import compare, read_earlier
from indexer.benchmark.evaluate import evaluate
from indexer.benchmark.report import Evaluation
from model.embedder import Embedder
from model.errors import EvaluationCancelled, FileUnreadable
from service.report.build import LONGEST_NAME, POLICY, Subject, report_html
from service.report.pictures import SIDE, Pictures
from tests.support.photos import car_photo
from tests.unit.indexer.sets import MemoryPhoto

SUBJECT = Subject("my cars", datetime(2026, 11, 28, 19, 30, tzinfo=UTC))
VOID = {"meta", "img", "link", "br", "hr", "input"}
HOSTILE = [
    '<img src=x onerror="alert(1)">',
    "</style></script><script>alert(1)</script>",
    "\"' onmouseover=alert(1) {{ 7 * 7 }} {% raw %}",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.rac \N{ARABIC LETTER ALEF}",
    "x" * 10_000,
]


class Page(HTMLParser):
    """The elements of a page by name, the values of attributes that may load or run something, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.values: set[str] = set()
        self.addresses: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.words += " "
        if tag not in VOID:
            self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values |= {value or "" for _, value in attrs}
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.words += " "

    def handle_data(self, data: str) -> None:
        self.words += data

    @property
    def text(self) -> str:
        """The words with single blanks between them."""
        return " ".join(self.words.split())


def photos_of(labels: Sequence[str], each: int = 3) -> list[MemoryPhoto]:
    """Photos of made-up cars, one kind a class; ids are "class/shot"."""
    return [
        MemoryPhoto(f"{label}/{shot}", label, car_photo(kind, shot))
        for kind, label in enumerate(labels)
        for shot in range(each)
    ]


def mislabelled(photos: Sequence[MemoryPhoto], place: int, label: str) -> list[MemoryPhoto]:
    changed = list(photos)
    changed[place] = replace(changed[place], label=label)
    return changed


@pytest.fixture(scope="module")
def evaluation(fake_embedder: Embedder) -> Evaluation:
    """Twelve photos of three classes, one of them with the wrong label and one a copy."""
    photos = mislabelled(photos_of("abc", 4), 11, "a")
    photos[1] = replace(photos[1], data=photos[0].data)
    return evaluate(photos, fake_embedder, details=True)


def test_the_first_words_are_the_score_in_plain_words(evaluation: Evaluation, fake_embedder: Embedder) -> None:
    page = Page(report_html(evaluation, fake_embedder, SUBJECT))
    share = f"{100 * evaluation.report.top1:.1f}%"
    assert f"For {share} of the photos, the most similar photo shows the right class" in page.text
    assert "12 photos of 3 classes were each compared with the other photos of the set." in page.text
    assert "Evaluation of my cars · 28 November 2026" in page.text
    assert "The original project's model on its own photos 84.5% not published 11,046 78" in page.text
    assert "only scores on the same photos say which model is better" in page.text
    assert "2 photos are copies of another one" in page.text
    assert "3 classes have fewer than 5 photos" not in page.text
    assert page.open == []
    assert page.tags.count("h1") == 1


def test_a_report_needs_nothing_from_elsewhere_and_runs_nothing(
    evaluation: Evaluation, fake_embedder: Embedder
) -> None:
    html = report_html(evaluation, fake_embedder, SUBJECT)
    page = Page(html)
    assert all(address.startswith(("data:image/webp;base64,", "#")) for address in page.addresses)
    assert page.tags.count("img") == sum(address.startswith("data:") for address in page.addresses) > 10
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.tags)
    assert not [name for name in page.attributes if name.startswith("on")]
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/)", html) == []
    assert POLICY in page.values
    assert POLICY.startswith("default-src 'none'; img-src data:;")


def test_every_link_leads_to_a_place_on_the_page(evaluation: Evaluation, fake_embedder: Embedder) -> None:
    html = report_html(evaluation, fake_embedder, SUBJECT)
    for address in Page(html).addresses:
        if address.startswith("#"):
            assert f'id="{address[1:]}"' in html


def test_names_of_attackers_stay_text(fake_embedder: Embedder, tmp_path: Path) -> None:
    plain = mislabelled(photos_of([f"class {number}" for number in range(5)]), 14, "class 0")
    hostile = mislabelled(photos_of(HOSTILE), 14, HOSTILE[0])
    pages: list[Page] = []
    for photos, name in ((plain, "cars"), (hostile, HOSTILE[1])):
        evaluation = evaluate(photos, fake_embedder, details=True)
        path = tmp_path / f"{len(pages)}.json"
        path.write_text(json.dumps(evaluation.to_json()))
        comparison = replace(compare(evaluation, read_earlier(path)), name=name, versions={name: (name, name)})
        subject = Subject(name, SUBJECT.when)
        pages.append(Page(report_html(evaluation, fake_embedder, subject, comparison=comparison)))
    assert pages[1].tags == pages[0].tags
    assert pages[1].attributes == pages[0].attributes
    assert len(pages[1].addresses) == len(pages[0].addresses)
    for name in HOSTILE[:4]:
        assert " ".join(name.split()) in pages[1].text
    assert HOSTILE[4][: LONGEST_NAME - 1] + "…" in pages[1].text
    assert HOSTILE[4][:LONGEST_NAME] not in pages[1].text


def test_a_photo_that_is_gone_is_said_to_be_and_the_report_goes_on(
    evaluation: Evaluation, fake_embedder: Embedder
) -> None:
    class Gone(MemoryPhoto):
        def read(self) -> bytes:
            raise FileUnreadable("The file cannot be read.")

    assert evaluation.details is not None
    photos = [Gone(photo.id, photo.label) for photo in evaluation.details.photos]
    gone = replace(evaluation, details=replace(evaluation.details, photos=photos))
    page = Page(report_html(gone, fake_embedder, SUBJECT))
    assert "img" not in page.tags
    assert "The photo is no longer there" in page.text


def test_whoever_waits_can_stop_it_between_two_photos(evaluation: Evaluation, fake_embedder: Embedder) -> None:
    steps = []

    def stop_at_the_fifth() -> None:
        steps.append(True)
        if len(steps) == 5:
            raise EvaluationCancelled

    with pytest.raises(EvaluationCancelled):
        report_html(evaluation, fake_embedder, SUBJECT, before_step=stop_at_the_fifth)


def test_what_changed_is_told_with_the_photos_that_flipped(
    evaluation: Evaluation, fake_embedder: Embedder, tmp_path: Path
) -> None:
    earlier = evaluation.to_json()
    first = next(one for one in earlier["answers"] if one["nearest_class"] == one["class"])
    first |= {"nearest": "a photo that is no longer there", "nearest_class": "another class"}
    path = tmp_path / "before.json"
    path.write_text(json.dumps(earlier))
    comparison = compare(evaluation, read_earlier(path))
    page = Page(report_html(evaluation, fake_embedder, SUBJECT, comparison=comparison))
    assert "What changed since before.json" in page.text
    assert "12 photos are in both evaluations and compared one by one." in page.text
    assert "Became right" in page.text
    assert "another class" in page.text
    assert "+8.3" in page.text


def test_pictures_are_small_and_upright(evaluation: Evaluation, fake_embedder: Embedder) -> None:
    assert evaluation.details is not None
    wide = MemoryPhoto("wide", "a", car_photo(1, 1, (800, 400)))
    pictures = Pictures(replace(evaluation.details, photos=[wide]), fake_embedder)
    uri = pictures.query("wide")
    assert uri is not None
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (SIDE, SIDE // 2)
    assert pictures.explained("wide", "wide").query_heat is None  # the fake runtime has no maps


def test_errors_have_heat_maps_where_the_model_has_them(shipped_embedder: Embedder) -> None:
    photos = mislabelled(photos_of("ab"), 5, "a")
    html = report_html(evaluate(photos, shipped_embedder, details=True), shipped_embedder, SUBJECT)
    assert "with heat where it is like the photo found" in html
    assert "so there are no maps" not in html
    assert "This model on cars/val, real photos" in Page(html).text


def test_a_gallery_s_photos_are_read_from_the_gallery(evaluation: Evaluation, fake_embedder: Embedder) -> None:
    asked = []

    def original(identity: str) -> bytes:
        asked.append(identity)
        return car_photo()

    report_html(evaluation, fake_embedder, SUBJECT, original=original)
    assert {answer.nearest for answer in evaluation.answers if not answer.right} <= set(asked)


def test_a_set_without_errors_and_one_of_many_classes_have_reports(fake_embedder: Embedder) -> None:
    right = Page(report_html(evaluate(photos_of("ab", 5), fake_embedder, details=True), fake_embedder, SUBJECT))
    assert "For 100.0% of the photos" in right.text
    assert "Nothing was confused." in right.text
    many = [f"class {number}" for number in range(40)]
    page = Page(report_html(evaluate(photos_of(many, 2), fake_embedder, details=True), fake_embedder, SUBJECT))
    assert "20 classes between them" in page.text
    assert "40 classes have fewer than 5 photos" in page.text


def test_an_evaluation_without_details_has_no_report(fake_embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="no details"):
        report_html(evaluate(photos_of("ab"), fake_embedder), fake_embedder, SUBJECT)
