"""The card for people: scores of this very model, with their intervals and commands, and texts."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.model_md import DESCRIPTION_NAME, describe, read_about, record_about, record_score
from indexer.benchmark.evaluate import evaluate
from model.card import CalibrationSet, Parity, load_card
from model.dataset import read_items
from model.embedder import Embedder
from model.errors import DataInvalid, ModelMismatch

COMMAND = "carsearch evaluate --data val --model fake"


@pytest.fixture
def artifact(fake_model: Path, tmp_path: Path) -> Path:
    """A model directory of the test's own."""
    return Path(shutil.copytree(fake_model, tmp_path / "model"))


@pytest.fixture
def report(fake_embedder: Embedder, gallery: Path) -> dict[str, Any]:
    """What `carsearch evaluate --report` writes, as it is read again."""
    evaluated = evaluate(read_items(gallery).items, fake_embedder).report
    value: dict[str, Any] = json.loads(json.dumps(evaluated.to_json()))
    return value


def test_a_score_goes_into_the_card_and_changes_no_embedding(artifact: Path, report: dict[str, Any]) -> None:
    before = load_card(artifact)
    card = record_score(artifact, report, "val", COMMAND)
    assert load_card(artifact) == card
    (score,) = card.scores
    assert (score.set, score.precision, score.command) == ("val", "fake", COMMAND)
    assert (score.correct, score.total, score.classes) == (report["correct"], 12, 3)
    assert [*score.ci95, *score.ci95_photos] == report["ci95"] + report["ci95_photos"]
    assert card.embedding_id("fake") == before.embedding_id("fake")
    assert dataclasses.replace(card, scores=[]) == before


def test_a_later_score_on_a_set_replaces_the_earlier_one(artifact: Path, report: dict[str, Any]) -> None:
    for name, command in (("val", "old"), ("rendered", "other"), ("val", "new")):
        record_score(artifact, report, name, command)
    assert [(score.set, score.command) for score in load_card(artifact).scores] == [
        ("rendered", "other"),
        ("val", "new"),
    ]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"mode": "gallery"}, DataInvalid, "leave-one-out"),
        ({"top1": None}, DataInvalid, "lacks or misspells a field"),
        ({"top1": "high"}, DataInvalid, "lacks or misspells a field"),
        ({"ci95": [0.5]}, DataInvalid, "lacks or misspells a field"),
        ({"versions": []}, DataInvalid, "lacks or misspells a field"),
        ({"versions": {"precision": "fp32", "embedding_id": "0" * 16}}, ModelMismatch, "of another model than"),
    ],
    ids=["gallery", "no top-1", "top-1 in words", "half an interval", "no versions", "another model"],
)
def test_a_report_that_is_not_this_model_s_benchmark_is_refused(
    artifact: Path, report: dict[str, Any], changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    before = (artifact / "card.json").read_bytes()
    with pytest.raises(error, match=sentence):
        record_score(artifact, {**report, **changes}, "val", COMMAND)
    assert (artifact / "card.json").read_bytes() == before
    assert not (artifact / DESCRIPTION_NAME).exists()


def test_the_description_tells_what_the_card_holds(artifact: Path, report: dict[str, Any]) -> None:
    training: dict[str, Any] = {
        "recipe": {"name": "mine", "input": {"crop": 32}},
        "train": {"photos": 2858},
        "teacher": None,
    }
    training["labels"] = {"train": ["a name of hundreds"]}
    dataclasses.replace(
        load_card(artifact),
        parity=[Parity("openvino", "int8", "fp32", 256, 0.97, 0.99314)],
        calibration=[CalibrationSet("train", 300, [f"car {number}" for number in range(70)])],
        training=training,
    ).save(artifact)
    record_about(artifact, {"summary": "For photos of real cars.", "known_limits": "No motorcycles."})
    card = record_score(artifact, report, "val | 28 classes", COMMAND)
    text = (artifact / DESCRIPTION_NAME).read_text(encoding="utf-8")
    assert text == describe(card)
    assert text.startswith("# fake\n\nFor photos of real cars.\n\nfake: a photo, as 32 x 32 pixels, becomes 64 values")
    for expected in (
        "## Known limits\n\nNo motorcycles.",
        f"| val \\| 28 classes | fake | {report['top1']:.4f} | {report['correct']} of 12, 3 classes | ",
        f"```sh\n{COMMAND}\n```",
        "- recipe: name mine, input (crop 32)",
        "- train: photos 2858",
        "- teacher: none",
        "- openvino in int8: cosine to torch 0.9931 in the mean, 0.9700 at the lowest, on 256 photos",
        "- int8 was calibrated with 300 photos of 70 classes from train",
    ):
        assert expected in text
    assert "a name of hundreds" not in text


def test_a_card_without_texts_and_scores_is_described_without_empty_headings(fake_model: Path) -> None:
    assert describe(load_card(fake_model)).count("\n") == 3


def test_texts_come_from_toml_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "about.toml"
    path.write_text('summary = "한 줄"\nlimits = """\nNone\nknown."""\ndata = "Renders."\n', encoding="utf-8")
    assert list(read_about(path).items()) == [("summary", "한 줄"), ("limits", "None\nknown."), ("data", "Renders.")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"summary = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"limits = 5", 'has a "limits" that is not a text'),
        (None, "cannot be read"),
    ],
)
def test_texts_that_are_none_are_one_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "about.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataInvalid, match=f"about.toml {sentence}") as caught:
        read_about(path)
    assert "\n" not in str(caught.value)
