"""Distillation: a teacher embeds photos without labels, and a run learns from it."""

import json
from pathlib import Path

import pytest

from model.card import load_card
from tests.support.photos import KOREAN, write_gallery
from tests.support.training import train

pytestmark = pytest.mark.torch


def test_a_teacher_and_photos_without_labels_come_together(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(gallery), "--out", str(tmp_path / "out"), "--recipe", "quick"]
    assert train([*data, "--unlabelled", str(gallery)]) == 1
    assert "give both or neither" in capsys.readouterr().err
    assert train([*data, "--teacher", "somebody"]) == 1
    assert "give both or neither" in capsys.readouterr().err


def test_a_run_learns_from_two_sets_and_a_teacher_and_its_card_says_so(
    real_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_gallery(tmp_path / "first", classes=3)
    second = write_gallery(tmp_path / "second", classes=3, first_kind=2)
    held = write_gallery(tmp_path / "held", classes=2, first_kind=8)
    more = write_gallery(tmp_path / "more", classes=2, first_kind=20)
    arguments = ["--data", str(first), "--data", str(second), "--val", str(held), "--unlabelled", str(more)]
    arguments += ["--teacher", str(real_model), "--recipe", "quick", "--epochs", "1", "--workers", "0"]
    assert train([*arguments, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    training = load_card(tmp_path / "out").training
    assert training["train"] == {"photos": 24, "classes": 5}  # "car 2" is in both sets and one class
    assert training["labels"]["train"] == ["car 1", "car 2", "car 3", "car 4", KOREAN]
    assert training["labels"]["validation"] == ["car 8", "car 9"]
    unlabelled = training["unlabelled"]
    assert unlabelled["teacher"] == real_model.name
    assert unlabelled["photos"] + unlabelled["near_validation_left_out"] == 8
    assert str(tmp_path) not in json.dumps(training)
