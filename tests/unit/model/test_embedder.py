"""A loaded model: files in order, the right precision, and a model that does not embed as its card says is refused."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from model.card import MIN_PARITY_COSINE, load_card
from model.embedder import Embedder
from model.errors import (
    EmbeddingInvalid,
    FileUnreadable,
    ImageRejected,
    ModelInvalid,
    PrecisionMissing,
)
from model.runtimes.fake import FakeRuntime
from model.types import Embeddings, Pixels
from tests.support.photos import car_photo


@pytest.fixture(scope="module")
def crops(real_embedder: Embedder) -> Pixels:
    return np.stack([real_embedder.prepare(car_photo(kind, shot)) for kind in range(3) for shot in range(3)])


@pytest.fixture(scope="module")
def singles(real_embedder: Embedder, crops: Pixels) -> Embeddings:
    """Each crop embedded in a call of its own."""
    return np.concatenate([real_embedder.embed_crops(crop[None]) for crop in crops])


@pytest.mark.torch
def test_torch_and_openvino_agree_and_share_an_embedding_id(
    real_model: Path, real_embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    reference = Embedder.load(real_model, "torch")
    assert np.abs(reference.embed_crops(crops) - singles).max() < 1e-5
    assert reference.embedding_id == real_embedder.embedding_id


def test_files_are_embedded_in_their_order_and_the_first_bad_one_is_raised(
    fake_embedder: Embedder, tmp_path: Path
) -> None:
    singles = np.stack([fake_embedder.embed_photo(car_photo(*divmod(number, 3))) for number in range(9)])
    paths = [tmp_path / f"{number}.jpg" for number in range(9)]
    for number, path in enumerate(paths):
        path.write_bytes(car_photo(*divmod(number, 3)))
    done: list[int] = []
    assert np.array_equal(fake_embedder.embed_files(paths, done.append), singles)
    assert done[-1] == 9
    assert done == sorted(done)
    with pytest.raises(FileUnreadable, match=r"gone\.jpg"):
        fake_embedder.embed_files([paths[0], tmp_path / "gone.jpg", *paths[1:]])
    paths[3].write_bytes(b"no photo")
    with pytest.raises(ImageRejected):
        fake_embedder.embed_files(paths)


@pytest.mark.torch
def test_int8_is_what_openvino_runs_where_a_model_has_it_and_torch_runs_fp32(
    int8_model: Path, int8_embedder: Embedder, real_embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    explicit = Embedder.load(int8_model, "openvino", "fp32")
    reference = Embedder.load(int8_model, "torch")
    assert [one.runtime.precision for one in (int8_embedder, explicit, reference)] == ["int8", "fp32", "fp32"]
    assert explicit.embedding_id == reference.embedding_id == real_embedder.embedding_id
    assert int8_embedder.embedding_id not in (explicit.embedding_id, Embedder.load(int8_model, "torch").embedding_id)
    assert np.array_equal(explicit.embed_crops(crops), singles)
    rows = int8_embedder.embed_crops(crops)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(crops)), abs=1e-6)
    assert not np.array_equal(rows, singles)
    assert (rows * singles).sum(axis=1).mean() > 0.95


@pytest.mark.torch
def test_a_precision_that_a_runtime_lacks_is_answered_with_what_to_do(
    real_model: Path, int8_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PrecisionMissing, match="torch runs a model in fp32 or bf16, not in int8; use openvino"):
        Embedder.load(int8_model, "torch", "int8")
    with pytest.raises(PrecisionMissing, match=r"in int8, only in fp32; make one with: .* --precision int8"):
        Embedder.load(real_model, "openvino", "int8")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Embedder.load(int8_model, "auto", "int8").runtime.name == "openvino"


@pytest.mark.torch
def test_a_model_is_loaded_in_the_precision_that_gave_an_embedding_or_in_the_runtime_s_own(int8_model: Path) -> None:
    card = load_card(int8_model)
    for precision in ("fp32", "int8"):
        like = Embedder.load_like(int8_model, card.embedding_id(precision), "openvino")
        assert like.runtime.precision == precision
    assert Embedder.load_like(int8_model, card.embedding_id("int8"), "torch").runtime.precision == "fp32"
    assert Embedder.load_like(int8_model, "0" * 16, "openvino").runtime.precision == "int8"


@pytest.mark.torch
def test_an_int8_graph_whose_golden_embedding_is_another_s_is_refused(int8_model: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(int8_model, tmp_path / "model"))
    card = load_card(directory)
    other = np.roll(card.golden["openvino/int8"], 7).tolist()
    dataclasses.replace(card, golden={**card.golden, "openvino/int8": other}).save(directory)
    with pytest.raises(ModelInvalid, match="with the runtime openvino in int8"):
        Embedder.load(directory, "openvino")
    assert Embedder.load(directory, "openvino", "fp32").dim == 512


@pytest.mark.parametrize(("mixed_in", "accepted"), [(0.001, True), (0.05, False), (-2.0, False), (float("nan"), False)])
def test_a_model_that_embeds_the_golden_photo_otherwise_is_refused(
    fake_model: Path, fake_embedder: Embedder, tmp_path: Path, mixed_in: float, accepted: bool
) -> None:
    directory = Path(shutil.copytree(fake_model, tmp_path / "model"))
    golden = fake_embedder.embed_photo(car_photo())
    altered = golden + np.float32(mixed_in) * np.roll(golden, 1)
    altered /= np.linalg.norm(altered)
    dataclasses.replace(load_card(directory), golden={"fake/fake": altered.tolist()}).save(directory)
    if accepted:
        assert golden @ altered > MIN_PARITY_COSINE
        assert Embedder.load(directory, "fake").dim == 64
    else:
        with pytest.raises(ModelInvalid, match="The golden photo gives another embedding here"):
            Embedder.load(directory, "fake")


class Turned(FakeRuntime):
    """The fake runtime in `precision`, with embeddings at a given cosine to what the card records."""

    def __init__(self, directory: Path, precision: str, cosine: float) -> None:
        super().__init__(directory, load_card(directory))
        self.precision = precision
        self._cosine = cosine

    def embed(self, crops: Pixels) -> Embeddings:
        rows = super().embed(crops)
        across = np.roll(rows, 1, axis=1)
        across -= (across * rows).sum(axis=1, keepdims=True) * rows
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        return np.float32(self._cosine) * rows + np.float32(np.sqrt(1 - self._cosine**2)) * across


@pytest.mark.parametrize(
    ("precision", "cosine", "accepted"),
    [("int8", 0.995, True), ("int8", 0.98, False), ("fp32", 0.995, False), ("fp32", 0.99995, True)],
)
def test_another_cpu_s_rounding_of_int8_is_accepted_and_another_model_is_not(
    fake_model: Path, fake_embedder: Embedder, precision: str, cosine: float, accepted: bool
) -> None:
    golden = fake_embedder.embed_photo(car_photo()).tolist()
    card = dataclasses.replace(load_card(fake_model), golden={f"fake/{precision}": golden})
    embedder = Embedder(fake_model, card, Turned(fake_model, precision, cosine))
    if accepted:
        embedder.check_golden()
    else:
        with pytest.raises(ModelInvalid, match=rf"cosine 0\.9\d+ with the runtime fake in {precision}"):
            embedder.check_golden()


class BrokenRuntime(FakeRuntime):
    """A runtime that always gives the same answer."""

    def __init__(self, directory: Path, answer: list[list[float]]) -> None:
        super().__init__(directory, dataclasses.replace(load_card(directory), embedding_dim=4, golden={}))
        self.answer = np.asarray(answer, np.float32)

    def embed(self, crops: Pixels) -> Embeddings:
        del crops
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        [[1, 0, 0, 0], [np.nan, 0, 0, 0]],
        [[1, 0, 0, 0], [np.inf, 0, 0, 0]],
        [[1, 0, 0, 0], [0, 0, 0, 0]],
        [[1, 0, 0, 0], [1, 1, 0, 0]],
        [[1, 0, 0, 0]],
        [[1, 0, 0], [1, 0, 0]],
    ],
    ids=["NaN", "infinite", "zero", "too long", "a row short", "a column short"],
)
def test_what_is_no_row_of_length_1_for_each_photo_is_never_handed_on(
    fake_model: Path, answer: list[list[float]]
) -> None:
    embedder = Embedder(fake_model, load_card(fake_model), BrokenRuntime(fake_model, answer))
    crops = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(EmbeddingInvalid):
        embedder.embed_crops(crops)
    with pytest.raises(EmbeddingInvalid):
        embedder.submit_crops(crops).wait()
