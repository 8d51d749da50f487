"""A model is given a whitening, the mirror image, today's decoder: its embeddings are others, and so is their id."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from model.card import DECODER, WEIGHTS_NAME, WHITENING_NAME, CarHeadRecord, load_card, verify_artifact
from model.embedder import Embedder
from model.errors import DataInvalid, ModelInvalid
from model.export.car_head import fit_car_head
from model.export.embedding_space import change_space
from model.export.openvino import export
from model.network.embedding_net import EmbeddingNetwork, load_network
from model.training.leakage import seen_classes
from tests.support.photos import car_photo, car_pixels, jpeg, write_gallery

pytestmark = pytest.mark.torch

CROPS = torch.from_numpy(np.stack([car_pixels(kind, 0, (64, 64)) for kind in range(3)]))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough classes for a whitening."""
    return write_gallery(tmp_path_factory.mktemp("whitening"), classes=10, photos=5, first_kind=40)


@pytest.fixture
def artifact(real_model: Path, tmp_path: Path) -> Path:
    """An exported model of the test's own."""
    return Path(shutil.copytree(real_model, tmp_path / "model"))


def network_of(directory: Path) -> EmbeddingNetwork:
    return load_network(directory, load_card(directory))


def test_a_whitening_stands_between_pooling_and_the_norm_and_is_part_of_the_id(artifact: Path, photos: Path) -> None:
    before = load_card(artifact)
    card = change_space(artifact, [photos])
    assert card == verify_artifact(artifact)
    assert set(card.files) - set(before.files) == {WHITENING_NAME}
    assert card.whitening is not None
    assert (card.whitening.photos, len(card.whitening.labels)) == (50, 10)
    assert card.embedding_id("fp32") != before.embedding_id("fp32")
    assert (card.precisions, list(card.golden)) == ([], ["torch/fp32"])
    network = network_of(artifact)
    with torch.inference_mode():
        pooled = network.pooled(network.normalise(CROPS)).numpy()
        rows = network(CROPS).numpy()
    assert network.whitening is not None
    expected = pooled @ network.whitening.numpy().T
    assert rows == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True), abs=1e-5)


def test_with_the_mirror_image_a_photo_and_its_mirror_image_are_the_same(artifact: Path) -> None:
    change_space(artifact, mirror=True)
    network = network_of(artifact)
    with torch.inference_mode():
        rows, mirrored = network(CROPS), network(CROPS.flip(2))
        plain = EmbeddingNetwork("resnet18", dataclasses.replace(network.spec, mirror=False)).eval()
        plain.load_state_dict(network.state_dict())
        assert not torch.allclose(plain(CROPS), plain(CROPS.flip(2)), atol=1e-3)
    assert torch.allclose(rows, mirrored, atol=1e-5)
    assert load_card(artifact).input.mirror


def test_a_change_keeps_what_it_does_not_name(artifact: Path, photos: Path) -> None:
    first = change_space(artifact, [photos])
    both = change_space(artifact, mirror=True)
    assert (both.whitening, both.files[WHITENING_NAME]) == (first.whitening, first.files[WHITENING_NAME])
    assert change_space(artifact, mirror=False).embedding_id("fp32") == first.embedding_id("fp32")


def test_the_graphs_give_the_whitened_embeddings_in_both_precisions(artifact: Path, photos: Path) -> None:
    change_space(artifact, [photos], mirror=True)
    assert export(artifact, photos).min_cosine > 0.9999
    parity = export(artifact, photos, precision="int8", calibration=[photos])
    assert parity.mean_cosine > 0.98
    photo = car_photo(50, 1)
    exact = Embedder.load(artifact, "torch").embed_photo(photo)
    assert float(Embedder.load(artifact, "openvino", "fp32").embed_photo(photo) @ exact) > 0.9999
    assert float(Embedder.load(artifact, "openvino", "int8").embed_photo(photo) @ exact) > 0.95


def test_too_few_classes_leave_the_model_as_it_was(artifact: Path, gallery: Path) -> None:
    before = load_card(artifact)
    with pytest.raises(DataInvalid, match="at least 10 classes with two photos"):
        change_space(artifact, [gallery])
    assert verify_artifact(artifact) == before


def test_the_classes_of_a_whitening_count_as_seen(artifact: Path, photos: Path) -> None:
    change_space(artifact, [photos])
    assert seen_classes((str(artifact),)) == {f"car {kind}" for kind in range(40, 50)}


def test_a_car_head_is_a_part_of_the_model_and_its_classes_count_as_seen(
    artifact: Path, photos: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(50):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
        (pictures / f"{seed}.jpg").write_bytes(jpeg(pixels))
    before = load_card(artifact)
    first = pictures / "0.jpg"
    noise = first.read_bytes()
    first.write_bytes(b"no photo")
    with pytest.raises(DataInvalid, match="as many other pictures; there are 50 and 49 that can be read"):
        fit_car_head(artifact, [photos], [pictures])
    assert verify_artifact(artifact) == before
    first.write_bytes(noise)
    fit_car_head(artifact, [photos], [pictures])
    head = Embedder.load(artifact, "torch").car_head
    assert head is not None
    card = verify_artifact(artifact)
    assert card.embedding_id("fp32") == before.embedding_id("fp32")
    assert card.car_head == CarHeadRecord(50, 50, sorted(f"car {kind}" for kind in range(40, 50)))
    assert seen_classes((str(artifact),)) == {f"car {kind}" for kind in range(40, 50)}
    assert change_space(artifact, mirror=True).car_head is None
    assert Embedder.load(artifact, "torch").car_head is None


def test_a_model_of_another_decoder_is_refused_with_the_command_that_makes_it_anew(
    artifact: Path, gallery: Path
) -> None:
    card = load_card(artifact)
    old = dataclasses.replace(card, input=dataclasses.replace(card.input, decoder="pillow-1"))
    old.save(artifact)
    with pytest.raises(ModelInvalid, match=rf"decoder pillow-1, and this version has {DECODER}; .*carsearch export"):
        Embedder.load(artifact)
    export(artifact, gallery)
    assert load_card(artifact).input.decoder == DECODER
    assert Embedder.load(artifact, "openvino").card.files[WEIGHTS_NAME] == card.files[WEIGHTS_NAME]
