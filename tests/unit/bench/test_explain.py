"""The deletion test: which tenth is hidden, and what the test says of maps that mean something."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from bench.explain import greatest, hide, measure, tables_of, tenths
from model.embedder import Embedder
from model.errors import DataInvalid
from model.explain import Heat
from tests.support.photos import write_gallery


def test_the_greatest_tenth_is_around_the_greatest_place() -> None:
    heat: Heat = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1]], np.float32)
    mask = greatest(heat, 30)
    assert mask.sum() == 90
    assert mask[20:, 20:].sum() == 90  # all in the ninth of the last place
    assert mask[29, 29]


def test_each_tenth_is_a_tenth_and_the_central_one_is_in_the_middle() -> None:
    masks = tenths(np.eye(4, dtype=np.float32), 100, np.random.default_rng(0))
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        "the map's": 1000,
        "random": 1000,
        "central": 32**2,
    }
    assert masks["central"][34:66, 34:66].all()


def test_what_is_hidden_is_grey_and_the_rest_stays(shipped_embedder: Embedder) -> None:
    crop = np.full((192, 192, 3), 7, np.uint8)
    mask = np.zeros((192, 192), bool)
    mask[:10, :10] = True
    hidden = hide(crop, mask, shipped_embedder)
    assert hidden[0, 0].tolist() == [125, 123, 114]  # 255 times the means 0.4914, 0.4824, 0.4467 of the card
    assert (hidden[~mask] == 7).all()
    assert (crop == 7).all()


def test_the_test_measures_drops_and_sums(tmp_path: Path) -> None:
    write_gallery(tmp_path / "set", classes=3, photos=3)
    found = measure("resnet18", tmp_path / "set", 4, bar=lambda _: nullcontext(lambda _done, _total: None))
    assert (found.model, found.pairs) == ("resnet18", 4)
    assert [one.tenth for one in found.hiding] == ["the map's", "random", "central"]
    by_map, random, _ = found.hiding
    assert by_map.ci95.low <= by_map.drop <= by_map.ci95.high
    assert random.less == pytest.approx(by_map.drop - random.drop)
    assert [one.served for one in found.differences] == ["vectors in fp32", "vectors in fp16"]
    assert found.differences[0].greatest < 1e-5
    assert [table.row_count for table in tables_of(found)] == [3, 2]


def test_a_set_of_one_photo_has_no_pair(tmp_path: Path) -> None:
    write_gallery(tmp_path / "set", classes=1, photos=1)
    with pytest.raises(DataInvalid, match="A pair needs two photos"):
        measure("resnet18", tmp_path / "set", 4)
