"""The command line of training is made from `TrainOptions`; wrong usage is one sentence and exit status 2."""

from dataclasses import fields
from pathlib import Path

import pytest

from model.training.options import TrainOptions, parse_options

NEEDED = ["--data", "photos", "--out", "model"]


def test_without_more_than_is_needed_every_option_has_its_default() -> None:
    assert parse_options(NEEDED, "train") == TrainOptions([Path("photos")], Path("model"), unlabelled=[])


def test_every_option_is_read() -> None:
    arguments = [*NEEDED, "--data", "more", "--val", "held", "--recipe", "quick"]
    arguments += ["--unlabelled", "a", "--unlabelled", "b"]
    arguments += ["--teacher", "resnet18", "--init", "random", "--device", "cpu", "--epochs", "3"]
    arguments += ["--batch-size", "8", "--crop", "64", "--workers", "0", "--validate-every", "2"]
    arguments += ["--precision", "32-true", "--restart"]
    options = parse_options(arguments, "train")
    assert options == TrainOptions(
        data=[Path("photos"), Path("more")], out=Path("model"), recipe="quick", validation=Path("held"),
        unlabelled=[Path("a"), Path("b")], teacher="resnet18", init="random", device="cpu", epochs=3,
        batch_size=8, crop=64, workers=0, validate_every=2, precision="32-true", restart=True,
    )  # fmt: skip
    default = parse_options(NEEDED, "train")
    assert [one.name for one in fields(options) if getattr(options, one.name) == getattr(default, one.name)] == ["out"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--epochs", "0"], "argument --epochs: 0 is less than 1"),
        (["--batch-size", "-1"], "argument --batch-size: -1 is less than 1"),
        (["--workers", "-1"], "argument --workers: -1 is less than 0"),
        (["--epochs", "many"], "argument --epochs: invalid number value: 'many'"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["photos"], "unrecognized arguments: photos"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_sentence(more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options([*NEEDED, *more], "carsearch train")
    assert ended.value.code == 2
    written = capsys.readouterr()
    assert (written.out, written.err) == ("", f"error: {sentence}; see carsearch train --help\n")


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(["--help"], "carsearch train")
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(f"--{name}" in told for name in ("data", "out", "val", "batch-size", "restart"))
