"""ONNX Runtime: the network in fp32 from the graph that ships, with the weights that torch has."""

import dataclasses
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from indexer.build import build_index
from indexer.versions import IndexDirectory
from model.card import MIN_PARITY_COSINE, ONNX_NAME, WEIGHTS_NAME, load_card
from model.embedder import Embedder, shipped_models
from model.errors import ModelInvalid, ModelMismatch, PrecisionMissing
from model.runtimes import load_runtime
from model.types import Embeddings, Pixels
from service.demo.gallery import DemoGallery
from service.engine import Engine
from tests.support.photos import car_photo


@pytest.fixture(scope="module", params=shipped_models())
def embedder(request: pytest.FixtureRequest) -> Embedder:
    """Each model that ships; loading compares its golden photo with the card."""
    return Embedder.load(request.param, "onnx")


@pytest.fixture(scope="module")
def crops(embedder: Embedder) -> Pixels:
    """Every 60th photo of the demo, uint8 (5, S, S, 3)."""
    photos = sorted(DemoGallery.load().photos.glob("*/*.jpg"))[::60]
    return np.stack([embedder.prepare(path) for path in photos[:5]])


@pytest.fixture(scope="module")
def singles(embedder: Embedder, crops: Pixels) -> Embeddings:
    """Each crop embedded in a call of its own."""
    return np.concatenate([embedder.embed_crops(crop[None]) for crop in crops])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A model that ships, as a copy of the test's own."""
    return Path(shutil.copytree(Embedder.load("resnet18", "onnx").directory, tmp_path / "model"))


def test_it_gives_the_embeddings_of_torch_and_is_the_same_space(embedder: Embedder, singles: Embeddings) -> None:
    (parity,) = (one for one in embedder.card.parity if one.runtime == "onnx")
    assert (parity.precision, parity.reference, parity.photos) == ("fp32", "fp32", 256)
    assert parity.min_cosine >= MIN_PARITY_COSINE
    golden = embedder.card.golden
    assert golden["onnx/fp32"] == pytest.approx(golden["torch/fp32"], abs=1e-5)
    assert (embedder.runtime.precision, embedder.embedding_id) == ("fp32", embedder.card.embedding_id("fp32"))
    assert singles.dtype == np.float32
    assert np.linalg.norm(singles, axis=1) == pytest.approx(np.ones(5), abs=1e-6)


def test_openvino_gives_the_same_for_this_graph_in_fp32(embedder: Embedder, crops: Pixels, singles: Embeddings) -> None:
    graph = ov.compile_model(embedder.directory / ONNX_NAME, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = np.concatenate([graph([crop[None]])["embedding"] for crop in crops])
    assert (rows * singles).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-4)


def test_a_photo_has_the_same_bits_in_every_batch_and_thread(
    embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    assert np.array_equal(embedder.embed_crops(crops), singles)
    assert np.array_equal(embedder.submit_crops(crops[1:3]).wait(), singles[1:3])
    assert embedder.embed_crops(crops[:0]).shape == (0, embedder.dim)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: embedder.embed_crops(crops[row, None])[0], [*range(5)] * 2))
    assert np.array_equal(found, np.concatenate([singles, singles]))


def test_it_is_chosen_where_openvino_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("model.runtimes._has_cuda_driver", lambda: False)
    assert Embedder.load("resnet18").runtime.name == "onnx"
    with pytest.raises(PrecisionMissing, match=r"^The runtime onnx runs a model in fp32, not in int8; use openvino"):
        Embedder.load("resnet18", precision="int8")


def test_an_index_of_the_other_precision_is_refused_with_what_to_do(
    real_index: IndexDirectory, gallery: Path, tmp_path: Path
) -> None:
    in_int8, in_fp32 = real_index, IndexDirectory(tmp_path)
    build_index(gallery, in_fp32, Embedder.load("resnet18", "onnx"))
    assert Engine.load(in_fp32, runtime="onnx").search(car_photo(1, 2), 1)[0].id == "car 1/2.jpg"
    with pytest.raises(ModelMismatch, match=r"in fp32, .* openvino .* in int8; use the runtime onnx, or build the "):
        Engine.load(in_fp32, runtime="openvino")
    with pytest.raises(ModelMismatch, match=r"in int8, .* onnx .* in fp32; use the runtime openvino, or build the "):
        Engine.load(in_int8, runtime="onnx")


@pytest.mark.parametrize("name", [ONNX_NAME, WEIGHTS_NAME])
def test_other_bytes_of_the_graph_or_of_the_weights_are_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (copy / name).write_bytes(content)
    with pytest.raises(ModelInvalid, match=f"is damaged: {name} does not have the recorded sha256"):
        Embedder.load(copy, "onnx")


def test_what_is_no_graph_or_has_no_weights_or_is_of_another_crop_is_refused(copy: Path) -> None:
    card = load_card(copy)
    with pytest.raises(ModelInvalid, match="but the card says crops of 32 pixels"):
        load_runtime("onnx", copy, dataclasses.replace(card, input=dataclasses.replace(card.input, crop=32)))
    unnamed = {name: record for name, record in card.files.items() if name != ONNX_NAME}
    with pytest.raises(PrecisionMissing, match=r"no ONNX graph; make one with: carsearch export .* --runtime onnx$"):
        load_runtime("onnx", copy, dataclasses.replace(card, files=unnamed))
    (copy / WEIGHTS_NAME).unlink()
    with pytest.raises(ModelInvalid, match=r"fp32\.onnx is not a graph that ONNX Runtime can read"):
        load_runtime("onnx", copy, card)
