"""torch in bf16 and in fixed batch shapes: what runs on a GPU, run on a CPU."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from model.card import load_card
from model.embedder import Embedder
from model.errors import PrecisionMissing
from model.images.transform import prepare
from model.runtimes.base import AsynchronousRuntime
from model.runtimes.torch import TorchRuntime
from model.types import Embeddings, Pixels
from tests.support.photos import car_photo

SHAPES = (1, 4, 8)


@pytest.fixture(scope="module")
def crops(real_model: Path) -> Pixels:
    spec = load_card(real_model).input
    return np.stack([prepare(car_photo(number // 3, number % 3), spec) for number in range(11)])


@pytest.fixture(scope="module")
def plain(real_model: Path, crops: Pixels) -> Embeddings:
    """What the network gives in batches as they come."""
    return TorchRuntime(real_model, load_card(real_model), device="cpu").embed(crops)


@pytest.fixture(scope="module")
def shaped(real_model: Path) -> TorchRuntime:
    return TorchRuntime(real_model, load_card(real_model), device="cpu", shapes=SHAPES)


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 8, 11])
def test_a_padded_batch_gives_its_own_rows_and_no_others(
    shaped: TorchRuntime, crops: Pixels, plain: Embeddings, count: int
) -> None:
    rows = shaped.embed(crops[:count])
    assert rows.dtype == np.float32
    assert rows.shape == (count, 512)
    assert np.abs(rows - plain[:count]).max(initial=0) < 1e-5


def test_what_a_larger_batch_left_in_a_buffer_changes_nothing(shaped: TorchRuntime, crops: Pixels) -> None:
    first = shaped.embed(crops[:3])
    shaped.embed(crops[7:11])
    assert np.array_equal(shaped.embed(crops[:3]), first)


def test_submitted_batches_keep_their_rows_whichever_is_asked_first(
    shaped: TorchRuntime, crops: Pixels, plain: Embeddings
) -> None:
    assert isinstance(shaped, AsynchronousRuntime)
    waiting = [shaped.submit(crops[start : start + 4]) for start in (0, 4)]
    second, first = waiting[1].wait(), waiting[0].wait()
    assert np.abs(np.concatenate([first, second]) - plain[:8]).max() < 1e-5


def test_threads_do_not_mix_up_the_shared_buffers(shaped: TorchRuntime, crops: Pixels, plain: Embeddings) -> None:
    orders = [np.random.default_rng(seed).permutation(len(crops)) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda order: shaped.embed(crops[order]), orders))
    for order, rows in zip(orders, found, strict=True):
        assert np.abs(rows - plain[order]).max() < 1e-5


def test_crops_may_be_on_the_device_already(shaped: TorchRuntime, crops: Pixels, plain: Embeddings) -> None:
    assert np.abs(shaped.submit(torch.from_numpy(crops[:5])).wait() - plain[:5]).max() < 1e-5


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


def test_what_goes_wrong_in_a_batch_is_raised_and_the_next_one_is_right(
    shaped: TorchRuntime, crops: Pixels, plain: Embeddings
) -> None:
    with pytest.raises(RuntimeError):  # crops of another size
        shaped.embed(crops[:2, 1:])
    found: list[Embeddings] = []
    other = threading.Thread(target=lambda: found.append(shaped.embed(crops[:4])))
    other.start()
    other.join(timeout=60)  # the lock was given back
    assert np.abs(found[0] - plain[:4]).max() < 1e-5
