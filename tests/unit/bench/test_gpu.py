"""`python -m bench.gpu` without a GPU: it runs without FAISS and OpenVINO, and its figures agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.photos import made_up_photos, photos_of
from model.images.decode import decode
from tests.unit.test_layout import ROOT

BLOCKED = """
import runpy, sys
for name in ("faiss", "openvino", "fastapi", "rich", "service"):
    sys.modules[name] = None
sys.argv = ["bench.gpu", *sys.argv[1:]]
runpy.run_module("bench.gpu", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.torch
def test_it_measures_without_faiss_openvino_and_the_service(real_model: Path) -> None:
    order = ("--model", real_model, "--count", "6", "--batches", "1", "2", "--seconds", "0.01", "--device", "cpu")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED, *map(str, order)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["device"], report["photos"], report["crop"]) == ("CPU", 6, 64)
    assert report["device"] in done.stderr
    figures = {(one["step"], one["how"], one["batch"]): one["photos_per_s"] for one in report["figures"]}
    for precision in ("fp32", "bf16"):
        limit = max(figures["forward", precision, 1], figures["forward", precision, 2])
        ratio = figures["end to end", precision, 32] / limit
        assert report["end_to_end_to_forward_limit"][precision] == pytest.approx(ratio)
        assert f"{ratio:.2f}" in done.stderr


def test_made_up_photos_are_all_different_and_can_be_decoded() -> None:
    photos = made_up_photos(70)
    assert len({photo.data for photo in photos}) == len(photos) == 70
    assert (decode(photos[0].data) == decode(photos[64].data)).all()
    assert decode(photos[1].data).shape == (384, 512, 3)


def test_photos_of_a_set_are_repeated_with_a_comment(gallery: Path) -> None:
    photos = photos_of(gallery, 20)
    assert len({photo.data for photo in photos}) == len(photos) == 20
    assert (decode(photos[0].data) == decode(photos[12].data)).all()
    assert len(photos_of(gallery, 5)) == 5
