"""torch on a CPU, in fp32 and bf16."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.card import load_card
from model.embedder import Embedder
from model.errors import PrecisionMissing
from model.images.transform import prepare
from model.runtimes.torch import TorchRuntime
from model.types import Embeddings, Pixels
from tests.support.photos import car_photo

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def crops(real_model: Path) -> Pixels:
    spec = load_card(real_model).input
    return np.stack([prepare(car_photo(number // 3, number % 3), spec) for number in range(11)])


@pytest.fixture(scope="module")
def plain(real_model: Path, crops: Pixels) -> Embeddings:
    """What the network gives in one batch."""
    return TorchRuntime(real_model, load_card(real_model), device="cpu").embed(crops)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_submitted_batch_has_the_rows_of_its_photos(
    real_model: Path, crops: Pixels, plain: Embeddings, count: int
) -> None:
    runtime = TorchRuntime(real_model, load_card(real_model), device="cpu")
    rows = runtime.submit(crops[:count]).wait()
    assert rows.dtype == np.float32
    assert rows.shape == (count, 512)
    assert np.abs(rows - plain[:count]).max(initial=0) < 1e-5


def test_a_cpu_computes_when_somebody_waits_and_cuda_is_given_all_batches_at_once(
    real_model: Path, crops: Pixels, plain: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = TorchRuntime(real_model, load_card(real_model), device="cpu")
    runtime.batch = 4
    sizes: list[int] = []
    runtime.network.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    for on_cuda, submitted in ((False, []), (True, [4, 4, 3])):
        sizes.clear()
        monkeypatch.setattr(runtime, "_on_cuda", on_cuda)
        pending = runtime.submit(crops)
        assert sizes == submitted
        assert np.abs(pending.wait() - plain).max() < 1e-5
        assert sizes == [4, 4, 3]


def test_bf16_is_near_fp32_and_a_space_of_its_own(real_model: Path, crops: Pixels, plain: Embeddings) -> None:
    embedder = Embedder.load(real_model, "torch", "bf16")
    card = load_card(real_model)
    assert embedder.runtime.precision == "bf16"
    assert embedder.embedding_id == card.embedding_id("bf16") != card.embedding_id("fp32")
    rows = embedder.embed_crops(crops)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(crops)), abs=1e-6)
    assert not np.array_equal(rows, plain)
    assert (rows * plain).sum(axis=1).min() > 0.999


def test_bf16_pools_in_fp32(real_model: Path, crops: Pixels) -> None:
    """Pooled features rounded to bf16 would have 16 zero bits each."""
    runtime = TorchRuntime(real_model, load_card(real_model), "bf16", device="cpu")
    assert {parameter.dtype for parameter in runtime.network.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        pooled = runtime.network.features(runtime.network.normalise(torch.from_numpy(crops[:2])))
    assert pooled.dtype == torch.float32
    assert not torch.equal(pooled, pooled.bfloat16().float())


def test_an_index_in_bf16_is_loaded_in_bf16_and_openvino_says_who_can(real_model: Path) -> None:
    wanted = load_card(real_model).embedding_id("bf16")
    assert Embedder.load_like(real_model, wanted, "torch").embedding_id == wanted
    assert Embedder.load_like(real_model, wanted, "auto").runtime.name == "torch"
    assert Embedder.load_like(real_model, wanted, "openvino").runtime.precision == "fp32"
    with pytest.raises(
        PrecisionMissing, match=r"^The runtime openvino runs no model in bf16; use the runtime torch\.$"
    ):
        Embedder.load(real_model, "openvino", "bf16")
