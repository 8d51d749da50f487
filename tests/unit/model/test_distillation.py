"""Photos without labels: found at any depth, cleared of held-out pictures, and embedded by a teacher."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from model.card import load_card
from model.dataset import Item, read_items, read_unlabelled
from model.embedder import Embedder
from model.errors import DataInvalid, EmptyGallery, ModelNotFound
from model.training.distillation import teacher_embeddings, without_near_duplicates
from model.training.trainer import main
from tests.support.photos import KOREAN, write_gallery


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


def test_photos_are_found_at_any_depth_and_have_no_label(gallery: Path, tmp_path: Path) -> None:
    found = read_unlabelled(gallery)
    assert [item.id for item in found.items] == [item.id for item in read_items(gallery).items]
    assert {item.label for item in found.items} == {""}
    with pytest.raises(EmptyGallery):
        read_unlabelled(tmp_path)


def test_copies_smaller_and_mirrored_ones_of_held_out_photos_are_left_out(tmp_path: Path) -> None:
    held = saved(scene(0), tmp_path / "held.jpg")
    others = [saved(scene(seed), tmp_path / f"other{seed}.jpg") for seed in range(1, 20)]
    copies = [
        saved(scene(0), tmp_path / "copy.jpg", quality=30),
        saved(scene(0).resize((90, 70)), tmp_path / "small.jpg"),
        saved(ImageOps.mirror(scene(0)), tmp_path / "mirrored.jpg"),
    ]
    assert without_near_duplicates([*others, *copies], [held]) == others


def test_the_teacher_embeds_whole_photos_as_a_search_would(
    real_model: Path, real_embedder: Embedder, gallery: Path
) -> None:
    items = read_unlabelled(gallery).items
    rows = teacher_embeddings(str(real_model), items)
    assert np.array_equal(rows[3], real_embedder.embed_photo(items[3].read()))


def test_a_teacher_and_photos_without_labels_come_together(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(gallery), "--out", str(tmp_path / "out"), "--recipe", "quick"]
    assert main([*data, "--unlabelled", str(gallery)]) == 1
    assert "give both or neither" in capsys.readouterr().err
    assert main([*data, "--teacher", "somebody"]) == 1
    assert "give both or neither" in capsys.readouterr().err
    with pytest.raises(ModelNotFound):
        teacher_embeddings("", read_unlabelled(gallery).items)


def test_a_run_learns_from_two_sets_and_a_teacher_and_its_card_says_so(
    real_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_gallery(tmp_path / "first", classes=3)
    second = write_gallery(tmp_path / "second", classes=3, first_kind=2)
    held = write_gallery(tmp_path / "held", classes=2, first_kind=8)
    more = write_gallery(tmp_path / "more", classes=2, first_kind=20)
    arguments = ["--data", str(first), "--data", str(second), "--val", str(held), "--unlabelled", str(more)]
    arguments += ["--teacher", str(real_model), "--recipe", "quick", "--epochs", "1", "--workers", "0"]
    assert main([*arguments, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    training = load_card(tmp_path / "out").training
    assert training["train"] == {"photos": 24, "classes": 5}  # "car 2" is in both sets and one class
    assert training["labels"]["train"] == ["car 1", "car 2", "car 3", "car 4", KOREAN]
    assert training["labels"]["validation"] == ["car 8", "car 9"]
    unlabelled = training["unlabelled"]
    assert unlabelled["teacher"] == real_model.name
    assert unlabelled["photos"] + unlabelled["near_validation_left_out"] == 8
    assert str(tmp_path) not in json.dumps(training)


def test_classes_of_validation_in_any_training_set_are_refused(tmp_path: Path) -> None:
    first = write_gallery(tmp_path / "first", classes=3)
    second = write_gallery(tmp_path / "second", classes=3, first_kind=5)
    from model.training.options import TrainOptions, load_sets
    from model.training.recipes import QUICK

    options = TrainOptions([first, second], tmp_path / "out", validation=second)
    with pytest.raises(DataInvalid, match='The class "car 5" is in both sets'):
        load_sets(options, QUICK)
