"""The photos of a run: unreadable ones are listed and left out, and no class is both trained and validated on."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from model.errors import DataInvalid
from model.training.options import TrainOptions
from model.training.photo_sets import SKIPPED_SHOWN, load_sets
from model.training.recipes import QUICK
from tests.support.photos import car_photo, write_gallery


def test_classes_of_validation_in_any_training_set_are_refused(tmp_path: Path) -> None:
    first = write_gallery(tmp_path / "first", classes=3)
    second = write_gallery(tmp_path / "second", classes=3, first_kind=5)
    options = TrainOptions([first, second], tmp_path / "out", validation=second)
    with pytest.raises(DataInvalid, match='The class "car 5" is in both sets; validation needs classes never trained'):
        load_sets(options, QUICK)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"teacher": "somebody"}, "give both or neither"),
        ({"unlabelled": [Path("photos")]}, "give both or neither"),
        ({"data": [Path("no such folder")]}, "no such folder cannot be read: No such file or directory."),
    ],
    ids=str,
)
def test_sets_that_cannot_be_trained_on_are_refused(
    gallery: Path, tmp_path: Path, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(DataInvalid, match=sentence):
        load_sets(TrainOptions(**{"data": [gallery], "out": tmp_path, **options}), QUICK)  # type: ignore[arg-type]


def test_validation_on_one_class_is_refused(gallery: Path, tmp_path: Path) -> None:
    one = write_gallery(tmp_path / "one", classes=1, first_kind=20)
    with pytest.raises(DataInvalid, match="has readable photos of fewer than two classes; name another --val"):
        load_sets(TrainOptions([gallery], tmp_path / "out", validation=one), QUICK)


def test_unreadable_photos_are_listed_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gallery(tmp_path, classes=2)
    (tmp_path / "car 1" / "broken.jpg").write_bytes(car_photo()[:500])
    (tmp_path / "car 1" / "empty.jpg").write_bytes(b"")
    (tmp_path / "stray.jpg").write_bytes(car_photo())
    sets = load_sets(TrainOptions([tmp_path], tmp_path / "out"), QUICK)
    assert len(sets.train) == 8
    assert capsys.readouterr().err.splitlines() == [
        "skipped stray.jpg: The photo has no class.",
        "skipped car 1/broken.jpg: The photo is damaged or cut off and cannot be decoded.",
        "skipped car 1/empty.jpg: The file is empty.",
    ]


def test_a_jpeg_that_is_decoded_reduced_may_be_larger_than_other_photos(tmp_path: Path) -> None:
    write_gallery(tmp_path, classes=2)
    Image.new("L", (8000, 6400)).save(tmp_path / "car 1" / "large.jpg")
    assert len(load_sets(TrainOptions([tmp_path], tmp_path / "out"), QUICK).train) == 9


def test_of_many_unreadable_photos_some_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gallery(tmp_path, classes=2)
    for number in range(SKIPPED_SHOWN + 3):
        (tmp_path / "car 1" / f"broken {number:02}.jpg").write_bytes(b"no photo")
    load_sets(TrainOptions([tmp_path], tmp_path / "out"), QUICK)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == SKIPPED_SHOWN + 1
    assert lines[-1] == "... and 3 more"


def test_a_class_that_is_only_written_otherwise_is_in_both_sets(tmp_path: Path) -> None:
    train = write_gallery(tmp_path / "train", classes=3, photos=2)
    val = write_gallery(tmp_path / "val", classes=2, photos=2, first_kind=5)
    (val / "car 5").rename(val / "CAR  1")
    with pytest.raises(DataInvalid, match=r'The class "CAR  1" \(also written "car 1"\) is in both sets'):
        load_sets(TrainOptions([train], tmp_path / "out", validation=val), QUICK)


def test_a_photo_that_is_in_both_sets_is_named(tmp_path: Path) -> None:
    train = write_gallery(tmp_path / "train", classes=3, photos=2)
    val = write_gallery(tmp_path / "val", classes=2, photos=2, first_kind=5)
    shutil.copy(train / "car 1" / "0.jpg", val / "car 5" / "copy.jpg")
    with pytest.raises(DataInvalid, match=r"val/car 5/copy\.jpg and .*train/car 1/0\.jpg are the same photo"):
        load_sets(TrainOptions([train], tmp_path / "out", validation=val), QUICK)
