"""Leakage: no class that an earlier model saw is validated on, and no photo like one of validation is learned from."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from model.card import load_card
from model.dataset import Item
from model.errors import DataInvalid
from model.training.leakage import check_unseen, seen_classes, without_near_duplicates
from tests.support.photos import write_gallery
from tests.support.training import train

pytestmark = pytest.mark.torch


def run(data: Path, out: Path, *more: str) -> int:
    arguments = ["--data", str(data), "--out", str(out), "--recipe", "quick", "--epochs", "1", "--workers", "0"]
    return train([*arguments, "--device", "cpu", *more])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the classes "car 1" to "car 4"."""
    folder = tmp_path_factory.mktemp("first")
    data = write_gallery(folder / "data", classes=4, first_kind=1)
    held = write_gallery(folder / "held", classes=2, first_kind=20)
    assert run(data, folder / "model", "--val", str(held), "--batch-size", "8") == 0
    return folder / "model"


def test_classes_seen_go_from_model_to_model(first: Path, tmp_path: Path) -> None:
    data = write_gallery(tmp_path / "data", classes=3, first_kind=7)
    held = write_gallery(tmp_path / "held", classes=2, first_kind=30)
    second = tmp_path / "second"
    assert run(data, second, "--val", str(held), "--init", str(first)) == 0
    training = load_card(second).training
    assert training["recipe"]["init"] == "the model model"
    assert training["labels"]["earlier"] == ["car 1", "car 2", "car 3", "car 4"]
    assert seen_classes(("random", str(second))) == {f"car {kind}" for kind in (1, 2, 3, 4, 7, 8, 9)}
    check_unseen({"car 30"}, (str(second), ""))
    with pytest.raises(DataInvalid, match='The class "car 2" of validation is one that a model'):
        check_unseen({"car 2", "car 30"}, ("imagenet", str(second)))


def test_a_class_that_the_start_was_trained_on_is_not_validated_on(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_gallery(tmp_path / "data", classes=3, first_kind=7)
    held = write_gallery(tmp_path / "held", classes=2, first_kind=4)
    assert run(data, tmp_path / "out", "--val", str(held), "--init", str(first)) == 1
    assert 'The class "car 4" of validation' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def scene(seed: int) -> Image.Image:
    """A picture of large shapes, which perceptual hashes are made for; one seed, one picture."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (160, 120), tuple(random.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = random.integers(-20, 120, 2).tolist()
        width, height = random.integers(20, 90, 2).tolist()
        draw.ellipse((left, top, left + width, top + height), tuple(random.integers(0, 256, 3).tolist()))
    return image


def saved(image: Image.Image, path: Path, quality: int = 90) -> Item:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    path.write_bytes(buffer.getvalue())
    return Item(path.name, "", path)


def test_copies_smaller_and_mirrored_ones_of_held_out_photos_are_left_out(tmp_path: Path) -> None:
    held = saved(scene(0), tmp_path / "held.jpg")
    others = [saved(scene(seed), tmp_path / f"other{seed}.jpg") for seed in range(1, 20)]
    copies = [
        saved(scene(0), tmp_path / "copy.jpg", quality=30),
        saved(scene(0).resize((90, 70)), tmp_path / "small.jpg"),
        saved(ImageOps.mirror(scene(0)), tmp_path / "mirrored.jpg"),
    ]
    assert without_near_duplicates([*others, *copies], [held]) == others
