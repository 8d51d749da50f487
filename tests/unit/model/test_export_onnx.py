"""Export to ONNX: measured like a graph of OpenVINO, beside it, and without weights of its own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import model.export.onnx
from model.card import ONNX_NAME, load_card, verify_artifact
from model.embedder import Embedder
from model.errors import ExplanationUnavailable, ParityFailed, SettingsInvalid
from model.export.embedding_space import change_space
from model.export.openvino import export
from model.network.embedding_net import EmbeddingNetwork
from tests.support.photos import car_photo, write_gallery

pytestmark = pytest.mark.torch


@pytest.fixture
def artifact(real_model: Path, tmp_path: Path) -> Path:
    """A model of the test's own, exported to OpenVINO."""
    return Path(shutil.copytree(real_model, tmp_path / "model"))


def test_a_graph_for_onnx_stands_beside_that_of_openvino(artifact: Path, gallery: Path) -> None:
    before = load_card(artifact)
    parity = export(artifact, gallery, runtime="onnx")
    card = verify_artifact(artifact)
    assert (parity.runtime, parity.precision, parity.photos) == ("onnx", "fp32", 12)
    assert card.parity == [*before.parity, parity]
    assert card.files.keys() - before.files.keys() == {ONNX_NAME}
    assert card.golden == {**before.golden, "onnx/fp32": card.golden["onnx/fp32"]}
    assert card.embedding_id("fp32") == before.embedding_id("fp32")
    assert card.files[ONNX_NAME].bytes < 100_000  # the weights are 22 MB
    graph = (artifact / ONNX_NAME).read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in graph
    export(artifact, gallery, runtime="onnx")
    assert (artifact / ONNX_NAME).read_bytes() == graph


def test_a_whitening_and_the_mirror_image_are_in_the_graph(artifact: Path, gallery: Path, tmp_path: Path) -> None:
    change_space(artifact, [write_gallery(tmp_path / "whitening", classes=10, photos=5)], mirror=True)
    export(artifact, gallery, runtime="onnx")
    onnx, reference = Embedder.load(artifact, "onnx"), Embedder.load(artifact, "torch")
    crops = np.stack([onnx.prepare(car_photo(kind)) for kind in range(3)])
    assert onnx.embed_crops(crops) == pytest.approx(reference.embed_crops(crops), abs=1e-5)
    with pytest.raises(ExplanationUnavailable, match="its graph gives no feature maps"):
        onnx.shares(crops[0])


def test_a_graph_that_does_not_reproduce_the_network_is_refused_and_removed(
    artifact: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_card(artifact)
    write = model.export.onnx.write_onnx

    def write_another(network: EmbeddingNetwork, directory: Path) -> None:
        network.mean += 100  # which is not a stored weight
        write(network, directory)

    monkeypatch.setattr(model.export.onnx, "write_onnx", write_another)
    with pytest.raises(ParityFailed, match=r"lowest cosine is -?0\.\d+ on 12 photos, and 0\.9999 is needed"):
        export(artifact, gallery, runtime="onnx")
    assert not (artifact / ONNX_NAME).exists()
    assert verify_artifact(artifact) == before


def test_there_is_no_int8_for_onnx(artifact: Path, gallery: Path) -> None:
    with pytest.raises(SettingsInvalid, match="onnx runs models in fp32, not in int8; leave out --precision"):
        export(artifact, gallery, precision="int8", calibration=[gallery], runtime="onnx")
