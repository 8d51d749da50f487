"""What a notebook shows of a search: photos as pictures, names as text."""

import base64
import csv
import io
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from indexer.build import build_index
from model.embedder import Embedder
from service.engine import Engine, open_index
from tests.support.photos import car_photo, write_gallery

HOSTILE = '<img src=x onerror="alert(1)">'


class Tags(HTMLParser):
    """The tags of a document with their attributes' names, and its text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: set[tuple[str, ...]] = set()
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add((tag, *(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight photos of two classes; one class, and a cell beside a photo of it, are HTML."""
    folder = write_gallery(tmp_path / "photos", classes=2, photos=4, first_kind=1)
    (folder / "car 2").rename(folder / HOSTILE)
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "price", "note"), (f"{HOSTILE}/0.jpg", 5, HOSTILE)])
    return folder


@pytest.fixture
def index(tmp_path: Path, photos: Path, fake_embedder: Embedder) -> Engine:
    build_index(photos, tmp_path / "index", fake_embedder)
    return open_index(tmp_path / "index", runtime="fake")


def test_hits_are_shown_as_pictures(index: Engine) -> None:
    hits = index.search(car_photo(1, 0), k=3)
    html = hits._repr_html_()
    shown = [base64.b64decode(data) for data in re.findall(r'<img src="data:image/jpeg;base64,(.*?)"', html)]
    assert [Image.open(io.BytesIO(data)).size for data in shown] == [(96, 72)] * 3
    assert "1: 1.0000<br>car 1<br>car 1/0.jpg<" in html


def test_names_and_cells_stay_text(index: Engine) -> None:
    shown = Tags(index.search(car_photo(2, 0), k=1)._repr_html_())
    assert shown.tags == {("figure", "style"), ("img", "src", "width", "alt"), ("figcaption",), ("br",)}
    assert shown.text == f"1: 1.0000{HOSTILE}{HOSTILE}/0.jpgprice 5note {HOSTILE}"


def test_a_photo_that_cannot_be_shown_leaves_its_sentence(index: Engine, photos: Path) -> None:
    hits = index.search(car_photo(1, 0), k=3, classes=["car 1"])
    (photos / "car 1" / "0.jpg").write_bytes(car_photo(9))
    (photos / hits[1].id).unlink()
    text = Tags(hits._repr_html_()).text
    assert text.startswith("The photo has changed since the gallery was indexed.1: 1.0000")
    assert "The file cannot be read: No such file or directory.2: 0." in text


def test_hits_are_a_list_here_and_in_another_process(index: Engine) -> None:
    hits = index.search(car_photo(1, 0), k=2)
    assert hits == list(hits) == pickle.loads(pickle.dumps(hits))  # noqa: S301  # just made
    assert index.search(car_photo(1, 0), where="price > 5")._repr_html_() == "no photo"
