"""Runtimes by name: a missing package names its extra, and the fake runtime."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.card import load_card
from model.embedder import Embedder
from model.errors import (
    MissingDependency,
    SettingsInvalid,
)
from model.runtimes import load_runtime
from tests.support.photos import car_photo


def test_the_fake_runtime_is_deterministic_and_puts_shots_of_one_car_together(fake_model: Path) -> None:
    first, second = (Embedder.load(fake_model, "fake") for _ in range(2))
    photos = [car_photo(kind, shot) for kind in (0, 1) for shot in (0, 1)]
    rows = np.stack([first.embed_photo(photo) for photo in photos])
    assert np.array_equal(rows, second.embed_crops(np.stack([second.prepare(photo) for photo in photos])))
    scores = rows @ rows.T
    assert min(scores[0, 1], scores[2, 3]) > max(scores[0, 2], scores[1, 3])


def test_a_runtime_that_does_not_exist_is_answered_with_those_that_do(fake_model: Path) -> None:
    with pytest.raises(SettingsInvalid, match='no runtime "tensorrt"; there are: auto, openvino, onnx, torch, fake'):
        Embedder.load(fake_model, "tensorrt")


@pytest.mark.parametrize(
    ("runtime", "package", "extra"),
    [
        ("openvino", "openvino", "cpu"),
        ("onnx", "onnxruntime", "onnx"),
        ("torch", "torch", "train"),
        ("auto", "openvino", "cpu"),
    ],
)
def test_a_missing_package_names_the_extra_that_brings_it(
    fake_model: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, package: str, extra: str
) -> None:
    for missing in ("openvino", "onnxruntime", "torch"):
        monkeypatch.setitem(sys.modules, missing, None)
    for module in ("openvino", "onnx", "torch"):
        monkeypatch.delitem(sys.modules, f"model.runtimes.{module}", raising=False)
    with pytest.raises(MissingDependency, match=rf'^{package} is not installed; .* "carsearch\[{extra}\]"$'):
        load_runtime(runtime, fake_model, load_card(fake_model))


@pytest.mark.torch
def test_an_install_for_gpus_embeds_on_the_cpu_where_it_finds_none(
    real_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert load_runtime("auto", real_model, load_card(real_model)).name == "openvino"
    for missing in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, missing, None)
    assert load_runtime("auto", real_model, load_card(real_model)).name == "torch"


@pytest.mark.torch
@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is a CUDA driver")
def test_without_a_cuda_driver_nobody_waits_for_the_import_of_torch() -> None:
    code = """
import sys
from model.embedder import PRETRAINED, Embedder
assert Embedder.load(PRETRAINED / "resnet18").runtime.name == "openvino"
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
