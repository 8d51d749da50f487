"""The commands that measure models and pack what ships, through the command line."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.__main__ import app
from model.card import load_card, verify_artifact
from model.errors import CarsearchError
from tests.support.photos import write_gallery


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_trivial_names_each_way_with_its_interval(tmp_path: Path) -> None:
    result = ask("trivial", "--data", write_gallery(tmp_path, classes=4))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.startswith(f"{tmp_path}: {name} ") for line, name in zip(lines, ("raw pixels", "colour"), strict=True)]
    assert all("95% over classes" in line and line.endswith("16 photos") for line in lines)


@pytest.fixture
def model(real_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(real_model, tmp_path / "model"))


@pytest.mark.torch
def test_a_card_takes_texts_and_scores_and_people_can_read_it(model: Path, gallery: Path, tmp_path: Path) -> None:
    from indexer.benchmark.evaluate import evaluate
    from model.dataset import read_items
    from model.embedder import Embedder

    report = evaluate(read_items(gallery).items, Embedder.load(model, "openvino")).report
    (tmp_path / "report.json").write_text(json.dumps(report.to_json()))
    (tmp_path / "about.toml").write_text('summary = "Tells three colours apart."\nlimits = "Nothing but colours."\n')
    result = ask(
        *("card", model, "--about", tmp_path / "about.toml", "--report", tmp_path / "report.json"),
        *("--set", "made-up", "--command", "carsearch evaluate --data made-up"),
    )
    assert result.exit_code == 0, result.output
    (score,) = verify_artifact(model).scores
    assert (score.set, score.top1, score.total) == ("made-up", report.top1, 12)
    text = (model / "MODEL.md").read_text()
    assert "Tells three colours apart." in text
    assert f"{report.top1:.4f}" in text
    assert "carsearch evaluate --data made-up" in text
    assert load_card(model).about["limits"] == "Nothing but colours."


@pytest.mark.torch
def test_a_score_needs_a_name_and_a_command(model: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    result = ask("card", model, "--report", tmp_path / "report.json")
    assert isinstance(result.exception, CarsearchError)
    assert "--set and --command" in str(result.exception)


def test_a_gallery_is_made_of_a_rendered_test_split_only(gallery: Path, tmp_path: Path) -> None:
    result = ask("gallery", "--from", gallery, "--out", tmp_path / "demo")
    assert isinstance(result.exception, CarsearchError)
    assert not (tmp_path / "demo").exists()
