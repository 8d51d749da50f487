"""Why a hit matches: the maps add up to the score of the search, and are drawn over both photos."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.card import InputSpec
from model.embedder import Embedder
from model.errors import ExplanationUnavailable, FileUnreadable, UnknownItem
from model.explain import Explanation
from model.images.box import Box
from service.engine import Engine
from service.explain import Explainer
from service.heat import GAP, HEIGHT, INFERNO, Match, draw_matches, overlaid, seen
from tests.conftest import Printed
from tests.support.photos import car_photo


@pytest.fixture(scope="module")
def engine(real_index: IndexDirectory) -> Engine:
    return Engine.load(real_index)


def test_the_maps_of_each_hit_add_up_to_its_score(engine: Engine) -> None:
    query = engine.query(car_photo(0, 9), 5)
    explainer = Explainer(engine, query)
    for hit in engine.answer(query).found.hits:
        found = explainer.explain(hit.id)
        assert found.query.shape == found.hit.shape == (6, 6)
        # The index may keep its vectors in half precision.
        assert found.query.sum() + found.constant == pytest.approx(hit.score, abs=1e-3)
        assert found.hit.sum() + found.constant == pytest.approx(hit.score, abs=1e-3)


def test_a_photo_is_explained_in_one_call_also_by_its_box(engine: Engine) -> None:
    photo, (hit,) = car_photo(1, 9), engine.search(car_photo(1, 9), 1)
    whole = engine.explain(photo, hit.id)
    assert whole.cosine == pytest.approx(hit.score, abs=1e-3)
    box = Box(20, 20, 100, 60)
    (boxed,) = engine.answer(engine.query(photo, 1, box=box)).found.hits
    explained = engine.explain(photo, boxed.id, box)
    assert explained.cosine == pytest.approx(boxed.score, abs=1e-3)
    with Image.open(io.BytesIO(explained._repr_jpeg_())) as shown:  # 76 x 52 pixels of the box lie in the photo
        assert shown.size == (468 + 427 + 3 * GAP, HEIGHT + 2 * GAP)


def test_a_query_by_an_id_is_explained_with_the_photo_of_the_gallery(engine: Engine) -> None:
    identity = engine.names.at(3)[0]
    query = engine.query_like(identity, 2)
    for hit in engine.answer(query).found.hits:
        assert Explainer(engine, query).explain(hit.id).cosine == pytest.approx(hit.score, abs=1e-3)


def test_photos_that_are_gone_or_have_changed_are_not_explained(
    gallery: Path, shipped_embedder: Embedder, tmp_path: Path
) -> None:
    photos = shutil.copytree(gallery, tmp_path / "photos")
    build_index(photos, IndexDirectory(tmp_path / "index"), shipped_embedder)
    engine = Engine.load(IndexDirectory(tmp_path / "index"))
    gone, changed = (engine.names.at(row)[0] for row in (0, 1))
    (photos / gone).unlink()
    (photos / changed).write_bytes(car_photo(7, 7))
    with pytest.raises(FileUnreadable, match="cannot be read"):
        engine.explain(car_photo(), gone)
    with pytest.raises(UnknownItem, match="has changed since the gallery was indexed"):
        engine.explain(car_photo(), changed)
    with pytest.raises(UnknownItem, match="no photo with this id"):
        engine.explain(car_photo(), "nowhere")


def test_an_engine_whose_model_has_no_graph_says_so(fake_index: IndexDirectory) -> None:
    engine = Engine.load(fake_index, runtime="fake")
    with pytest.raises(ExplanationUnavailable, match="it has no OpenVINO graph"):
        engine.explain(car_photo(), engine.names.at(0)[0])


def test_heat_covers_a_grey_photo_where_the_map_is_greatest() -> None:
    """A white photo of 320 pixels: 60% grey without heat; at the greatest heat 80% of the last colour lies over it."""
    heat = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [-1, -1, -1, 1]], np.float32)
    made = np.asarray(overlaid(np.full((320, 400, 3), 255, np.uint8), heat, 1))
    assert made.shape == (320, 400, 3)
    assert made[:, 10].tolist() == [[153, 153, 153]] * 320
    assert made[160, 399] == pytest.approx(0.8 * INFERNO[-1] + 0.2 * 153, abs=1)
    cooler = np.asarray(overlaid(np.full((320, 400, 3), 255, np.uint8), heat, 2))
    assert cooler[160, 399] == pytest.approx(0.4 * INFERNO[4] + 0.6 * 153, abs=1)


def test_a_row_for_each_match_shows_both_photos_at_one_height() -> None:
    explanation = Explanation(np.eye(2, dtype=np.float32), np.zeros((2, 2), np.float32), 0)
    tall, wide = np.full((200, 100, 3), 200, np.uint8), np.full((100, 200, 3), 90, np.uint8)
    page = draw_matches(wide, [Match(tall, explanation, "1: 0.9"), Match(wide, explanation, "2: 0.8")])
    assert page.size == (640 + 640 + 3 * GAP, 2 * HEIGHT + 3 * GAP)
    assert page.getpixel((700 + 160, GAP + 200)) == (255, 255, 255)  # beside the narrow photo of the first row
    assert page.getpixel((2 * GAP + 640 + 100, GAP + 200)) == (120, 120, 120)


def test_a_model_that_cuts_a_square_is_drawn_over_the_square() -> None:
    photo = car_photo()
    assert seen(photo, InputSpec(resize=72, crop=64, fit="centre")).shape == (64, 64, 3)
    with Image.open(io.BytesIO(photo)) as image:
        height, width, _ = seen(photo, InputSpec(resize=64, crop=64, fit="stretch")).shape
        assert width / height == pytest.approx(image.width / image.height, abs=0.02)


def test_the_command_draws_the_picture(
    carsearch: Callable[..., Printed], real_index: IndexDirectory, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(car_photo(0, 9))
    asked = ("search", tmp_path / "photo.jpg", "--index", real_index.root, "-k", "7", "--json")
    printed = carsearch(*asked, "--explain", tmp_path / "why.png")
    assert printed.returncode == 0, printed.stderr
    assert len(json.loads(printed.stdout)["results"]) == 7
    with Image.open(tmp_path / "why.png") as drawn:
        assert (drawn.format, drawn.height) == ("PNG", 5 * HEIGHT + 6 * GAP)
    plain = carsearch(*asked)
    assert json.loads(plain.stdout)["results"] == json.loads(printed.stdout)["results"]


@pytest.mark.parametrize("wrong", [["why.bmp"], ["why.png", "--out", "found.csv"]])
def test_the_command_draws_a_png_of_one_photo(carsearch: Callable[..., Printed], wrong: list[str]) -> None:
    printed = carsearch("search", "photo.jpg", "--explain", *wrong)
    assert printed.returncode == 2
    assert "draws a PNG for one photo" in printed.stderr
