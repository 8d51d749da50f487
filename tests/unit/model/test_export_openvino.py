"""Export: a graph is part of an artifact only when it was measured to reproduce the network."""

import shutil
from pathlib import Path

import openvino as ov
import pytest
import torch

import model.export.openvino
from model.card import GOLDEN_NAME, MIN_PARITY_COSINE, WEIGHTS_NAME, Card, load_card, verify_artifact
from model.embedder import Embedder
from model.errors import DataInvalid, ModelInvalid, ParityFailed
from model.export.openvino import export
from model.network.embedding_net import EmbeddingNetwork

pytestmark = pytest.mark.torch

GRAPH = {"openvino/fp32.xml", "openvino/fp32.bin"}


@pytest.fixture
def artifact(real_model: Path, tmp_path: Path) -> Path:
    """An exported model of the test's own."""
    return Path(shutil.copytree(real_model, tmp_path / "model"))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def assert_has_no_graph(directory: Path) -> None:
    card = verify_artifact(directory)
    assert set(card.files) == {WEIGHTS_NAME, GOLDEN_NAME}
    assert (card.parity, list(card.golden)) == ([], ["torch/fp32"])
    with pytest.raises(ModelInvalid, match="has no OpenVINO graph; make one with: carsearch export"):
        Embedder.load(directory, "openvino")


def test_the_card_records_the_parity_that_was_measured(real_model: Path) -> None:
    card = verify_artifact(real_model)
    (parity,) = card.parity
    assert (parity.runtime, parity.precision, parity.reference, parity.photos) == ("openvino", "fp32", "fp32", 16)
    assert MIN_PARITY_COSINE <= parity.min_cosine <= parity.mean_cosine <= 1 + 1e-6
    assert set(card.files) == {WEIGHTS_NAME, GOLDEN_NAME} | GRAPH
    assert set(card.golden) == {"torch/fp32", "openvino/fp32"}


def test_a_graph_that_does_not_reproduce_the_network_is_refused_and_removed(
    artifact: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = model.export.openvino.convert

    def convert_another(network: EmbeddingNetwork) -> ov.Model:
        torch.manual_seed(99)
        return convert(EmbeddingNetwork(network.architecture, network.spec))

    monkeypatch.setattr(model.export.openvino, "convert", convert_another)
    with pytest.raises(ParityFailed, match=r"lowest cosine is -?0\.\d+ on 12 photos, and 0\.9999 is needed"):
        export(artifact, gallery)
    assert list((artifact / "openvino").iterdir()) == []
    assert_has_no_graph(artifact)


def test_an_export_that_was_killed_leaves_a_model_without_a_graph(
    artifact: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph lies there, but its parity was never measured: as after kill -9, when nothing is tidied up."""
    cards: list[Card] = []

    def observe(directory: Path, *_: object) -> None:
        assert {str(path.relative_to(directory)) for path in (directory / "openvino").iterdir()} == GRAPH
        assert_has_no_graph(directory)
        cards.append(load_card(directory))
        raise KeyboardInterrupt

    monkeypatch.setattr(model.export.openvino, "measure_parity", observe)
    with pytest.raises(KeyboardInterrupt):
        export(artifact, gallery)
    assert len(cards) == 1
    assert_has_no_graph(artifact)


def test_exporting_again_heals_a_damaged_graph(artifact: Path, real_model: Path, gallery: Path) -> None:
    flip_a_byte(artifact / "openvino" / "fp32.bin")
    with pytest.raises(ModelInvalid, match=r"is damaged: openvino/fp32\.bin"):
        verify_artifact(artifact)
    progress: list[tuple[int, int]] = []
    export(artifact, gallery, lambda *done: progress.append(done))
    assert progress == [(12, 12)]
    healed, original = verify_artifact(artifact), load_card(real_model)
    assert healed.golden == original.golden
    assert healed.embedding_id("fp32") == original.embedding_id("fp32")
    assert Embedder.load(artifact, "openvino").dim == 512


def test_damaged_weights_are_not_exported(artifact: Path, gallery: Path) -> None:
    flip_a_byte(artifact / WEIGHTS_NAME)
    with pytest.raises(ModelInvalid, match=rf"is damaged: {WEIGHTS_NAME} does not have the recorded sha256"):
        export(artifact, gallery)


def test_without_photos_there_is_no_parity_and_the_artifact_stays_as_it_was(artifact: Path, tmp_path: Path) -> None:
    before = load_card(artifact)
    (tmp_path / "set" / "class").mkdir(parents=True)
    (tmp_path / "set" / "class" / "1.jpg").write_bytes(b"no photo")
    with pytest.raises(DataInvalid, match="pass --photos DIR"):
        export(artifact)
    with pytest.raises(DataInvalid, match=r"None of the photos in .* can be read"):
        export(artifact, tmp_path / "set")
    assert verify_artifact(artifact) == before


def test_a_directory_that_is_no_model_is_not_exported(tmp_path: Path, gallery: Path) -> None:
    with pytest.raises(ModelInvalid, match="There is no model in "):
        export(tmp_path, gallery)
    assert list(tmp_path.iterdir()) == []


def test_parity_is_measured_on_photos_spread_over_the_whole_set(real_model: Path, gallery: Path) -> None:
    crops = [crop for _, crop in model.export.openvino.spread_photos(gallery, load_card(real_model).input, 3)]
    every_fourth = [path for folder in sorted(gallery.iterdir()) for path in sorted(folder.iterdir())][::4]
    expected = {Embedder.load(real_model, "openvino").prepare(path.read_bytes()).tobytes() for path in every_fourth}
    assert {crop.tobytes() for crop in crops} == expected
    assert len(crops) == 3
