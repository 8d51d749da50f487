"""Runtimes: the same photo has the same bits in every batch and thread, and a wrong model is refused."""

import dataclasses
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from model.card import MIN_PARITY_COSINE, load_card
from model.embedder import Embedder, batches, map_in_order
from model.errors import (
    EmbeddingInvalid,
    FileUnreadable,
    ImageRejected,
    MissingDependency,
    ModelInvalid,
    PrecisionMissing,
    SettingsInvalid,
)
from model.runtimes import load_runtime
from model.runtimes.base import Runtime
from model.runtimes.openvino import OpenVINORuntime
from model.types import Embeddings, Pixels
from tests.support.calls import eventually
from tests.support.photos import car_photo


@pytest.fixture(scope="module")
def crops(real_embedder: Embedder) -> Pixels:
    return np.stack([real_embedder.prepare(car_photo(kind, shot)) for kind in range(3) for shot in range(3)])


@pytest.fixture(scope="module")
def singles(real_embedder: Embedder, crops: Pixels) -> Embeddings:
    """Each crop embedded in a call of its own."""
    return np.concatenate([real_embedder.embed_crops(crop[None]) for crop in crops])


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_batch_gives_the_bits_of_single_calls(
    real_embedder: Embedder, crops: Pixels, singles: Embeddings, count: int
) -> None:
    assert np.array_equal(real_embedder.embed_crops(crops[:count]), singles[:count])


def test_four_threads_at_once_get_the_bits_of_single_calls(
    real_embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    orders = [np.random.default_rng(seed).permutation(len(crops)) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda order: real_embedder.embed_crops(crops[order]), orders))
    for order, embeddings in zip(orders, found, strict=True):
        assert np.array_equal(embeddings, singles[order])


def test_calls_that_fail_in_the_middle_leave_nothing_behind(
    real_embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    runtime = cast(OpenVINORuntime, real_embedder.runtime)
    for _ in range(3):
        given_up = runtime.submit(crops)
        with pytest.raises(ValueError, match="the graph takes"):  # crops of another size
            runtime.submit(crops[:2, 1:])
        del given_up  # nobody waits for it
    assert np.array_equal(real_embedder.embed_crops(crops), singles)
    runtime.embed(crops[:1])
    assert not runtime._pending


def test_batches_submitted_one_after_the_other_keep_their_own_rows(
    real_embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    runtime = cast(OpenVINORuntime, real_embedder.runtime)
    pending = [runtime.submit(crops[start : start + 2]) for start in range(0, 9, 2)]
    eventually(lambda: all(one.done() for one in pending), "all are embedded")
    for start, one in reversed(list(zip(range(0, 9, 2), pending, strict=True))):
        assert np.array_equal(one.wait(), singles[start : start + 2])


def test_lone_photos_get_the_same_bits_and_are_computed_by_who_waits(
    real_embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    runtime = cast(OpenVINORuntime, real_embedder.runtime)
    for row in range(3):
        lone = runtime.submit(crops[row : row + 1], lone=True)
        beside = runtime.submit(crops[row + 1 : row + 2], lone=True)  # which therefore is not
        assert np.array_equal(beside.wait(), singles[row + 1 : row + 2])
        assert runtime._streams == 1 or not lone.done()
        assert np.array_equal(lone.wait(), singles[row : row + 1])


def test_one_photo_does_not_wait_for_all_of_an_evaluation(real_embedder: Embedder, crops: Pixels) -> None:
    finished: list[str] = []
    begun = threading.Event()

    def batch() -> None:
        many = np.repeat(crops[:1], 512, axis=0)
        begun.set()
        real_embedder.runtime.embed(many)
        finished.append("batch")

    evaluation = threading.Thread(target=batch)
    evaluation.start()
    begun.wait()
    for _ in range(3):
        real_embedder.embed_crops(crops[:1])
        finished.append("photo")
    evaluation.join()
    assert finished == ["photo", "photo", "photo", "batch"]


def test_embeddings_of_the_same_class_are_rows_of_length_1(singles: Embeddings, real_embedder: Embedder) -> None:
    assert singles.dtype == np.float32
    assert singles.shape == (9, real_embedder.dim) == (9, 512)
    assert np.linalg.norm(singles, axis=1) == pytest.approx(np.ones(9), abs=1e-6)


def test_no_crops_are_no_rows(real_embedder: Embedder, crops: Pixels) -> None:
    assert real_embedder.embed_crops(crops[:0]).shape == (0, 512)


def test_torch_and_openvino_agree_and_share_an_embedding_id(
    real_model: Path, real_embedder: Embedder, crops: Pixels, singles: Embeddings
) -> None:
    reference = Embedder.load(real_model, "torch")
    assert np.abs(reference.embed_crops(crops) - singles).max() < 1e-5
    assert reference.embedding_id == real_embedder.embedding_id


def test_files_are_embedded_in_their_order_and_the_first_bad_one_is_raised(
    real_embedder: Embedder, singles: Embeddings, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(9)]
    for number, path in enumerate(paths):
        path.write_bytes(car_photo(*divmod(number, 3)))
    done: list[int] = []
    assert np.array_equal(real_embedder.embed_files(paths, done.append), singles)
    assert done[-1] == 9
    assert done == sorted(done)
    assert np.array_equal(real_embedder.embed_photo(car_photo(2, 2)), singles[8])
    with pytest.raises(FileUnreadable, match=r"gone\.jpg"):
        real_embedder.embed_files([paths[0], tmp_path / "gone.jpg", *paths[1:]])
    paths[3].write_bytes(b"no photo")
    with pytest.raises(ImageRejected):
        real_embedder.embed_files(paths)


def test_a_compiled_graph_from_the_cache_gives_the_same_bits(
    real_model: Path, crops: Pixels, singles: Embeddings, tmp_path: Path
) -> None:
    for _ in range(2):
        embedder = Embedder.load(real_model, "openvino", cache_dir=tmp_path)
        assert np.array_equal(embedder.embed_crops(crops[:2]), singles[:2])
    assert any(tmp_path.iterdir())


def test_the_fake_runtime_is_deterministic_and_puts_shots_of_one_car_together(fake_model: Path) -> None:
    first, second = (Embedder.load(fake_model, "fake") for _ in range(2))
    photos = [car_photo(kind, shot) for kind in (0, 1) for shot in (0, 1)]
    rows = np.stack([first.embed_photo(photo) for photo in photos])
    assert np.array_equal(rows, second.embed_crops(np.stack([second.prepare(photo) for photo in photos])))
    scores = rows @ rows.T
    assert min(scores[0, 1], scores[2, 3]) > max(scores[0, 2], scores[1, 3])


def test_a_runtime_that_does_not_exist_is_answered_with_those_that_do(fake_model: Path) -> None:
    with pytest.raises(SettingsInvalid, match='no runtime "tensorrt"; there are: auto, openvino, torch, fake'):
        Embedder.load(fake_model, "tensorrt")


@pytest.mark.parametrize(("runtime", "extra"), [("openvino", "cpu"), ("torch", "train"), ("auto", "cpu")])
def test_a_missing_package_names_the_extra_that_brings_it(
    fake_model: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, extra: str
) -> None:
    for package in ("openvino", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    for module in ("model.runtimes.openvino", "model.runtimes.torch"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    package = "torch" if runtime == "torch" else "openvino"
    with pytest.raises(MissingDependency, match=rf'^{package} is not installed; .* "carsearch\[{extra}\]"$'):
        load_runtime(runtime, fake_model, load_card(fake_model))


def test_an_install_for_gpus_embeds_on_the_cpu_where_it_finds_none(
    real_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert load_runtime("auto", real_model, load_card(real_model)).name == "openvino"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert load_runtime("auto", real_model, load_card(real_model)).name == "torch"


def test_a_graph_of_another_crop_or_dimension_than_the_card_is_refused(real_model: Path) -> None:
    card = load_card(real_model)
    with pytest.raises(ModelInvalid, match="says 511 dimensions, the graph gives 512"):
        load_runtime("openvino", real_model, dataclasses.replace(card, embedding_dim=511))
    with pytest.raises(ModelInvalid, match="but the card says crops of 32 pixels"):
        load_runtime("openvino", real_model, dataclasses.replace(card, input=dataclasses.replace(card.input, crop=32)))


def test_a_graph_that_is_none_is_refused(real_model: Path, tmp_path: Path) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "fp32.xml").write_text("<no/>")
    with pytest.raises(ModelInvalid, match=r"fp32\.xml is not a graph that OpenVINO can read"):
        load_runtime("openvino", tmp_path, load_card(real_model))


def test_a_graph_that_the_card_does_not_name_is_not_served(real_model: Path) -> None:
    card = load_card(real_model)
    unmeasured = dataclasses.replace(card, files={name: card.files[name] for name in list(card.files)[:2]})
    with pytest.raises(ModelInvalid, match="has no OpenVINO graph; make one with: carsearch export"):
        load_runtime("openvino", real_model, unmeasured)


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


class Turned:
    """The fake runtime as one in `precision` whose embeddings are turned by an angle from what the card records."""

    name = "fake"

    def __init__(self, runtime: Runtime, precision: str, cosine: float) -> None:
        self.precision = precision
        self.dim = runtime.dim
        self._runtime, self._cosine = runtime, cosine

    def embed(self, crops: Pixels) -> npt.NDArray[np.float32]:
        rows = self._runtime.embed(crops)
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
    embedder = Embedder(fake_model, card, Turned(fake_embedder.runtime, precision, cosine))
    if accepted:
        embedder.check_golden()
    else:
        with pytest.raises(ModelInvalid, match=rf"cosine 0\.9\d+ with the runtime fake in {precision}"):
            embedder.check_golden()


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


def test_int8_gives_a_photo_the_same_bits_in_every_batch(int8_embedder: Embedder, crops: Pixels) -> None:
    together = int8_embedder.embed_crops(crops)
    assert np.array_equal(together, np.concatenate([int8_embedder.embed_crops(crop[None]) for crop in crops]))


def test_a_precision_that_a_runtime_lacks_is_answered_with_what_to_do(
    real_model: Path, int8_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PrecisionMissing, match="torch runs a model in fp32 or bf16, not in int8; use openvino"):
        Embedder.load(int8_model, "torch", "int8")
    with pytest.raises(PrecisionMissing, match=r"in int8, only in fp32; make one with: .* --precision int8"):
        Embedder.load(real_model, "openvino", "int8")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Embedder.load(int8_model, "auto", "int8").runtime.name == "openvino"


def test_a_model_is_loaded_in_the_precision_that_gave_an_embedding_or_in_the_runtime_s_own(int8_model: Path) -> None:
    card = load_card(int8_model)
    for precision in ("fp32", "int8"):
        like = Embedder.load_like(int8_model, card.embedding_id(precision), "openvino")
        assert like.runtime.precision == precision
    assert Embedder.load_like(int8_model, card.embedding_id("int8"), "torch").runtime.precision == "fp32"
    assert Embedder.load_like(int8_model, "0" * 16, "openvino").runtime.precision == "int8"


def test_an_int8_graph_whose_golden_embedding_is_another_s_is_refused(int8_model: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(int8_model, tmp_path / "model"))
    card = load_card(directory)
    other = np.roll(card.golden["openvino/int8"], 7).tolist()
    dataclasses.replace(card, golden={**card.golden, "openvino/int8": other}).save(directory)
    with pytest.raises(ModelInvalid, match="with the runtime openvino in int8"):
        Embedder.load(directory, "openvino")
    assert Embedder.load(directory, "openvino", "fp32").dim == 512


class BrokenRuntime:
    """A runtime that gives the same answer whatever it is asked."""

    name = "broken"
    precision = "fp32"
    dim = 4

    def __init__(self, answer: npt.ArrayLike) -> None:
        self.answer = np.asarray(answer, np.float32)

    def embed(self, _crops: Pixels) -> npt.NDArray[np.float32]:
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
    embedder = Embedder(fake_model, load_card(fake_model), BrokenRuntime(answer))
    with pytest.raises(EmbeddingInvalid):
        embedder.embed_crops(np.zeros((2, 32, 32, 3), np.uint8))


def test_a_map_in_order_keeps_few_results_waiting_and_the_order() -> None:
    started: list[int] = []

    def start(number: int) -> int:
        started.append(number)
        return number

    with ThreadPoolExecutor(2) as pool:
        results = map_in_order(pool, start, range(100), ahead=4)
        assert next(results) == 0
        assert len(started) <= 5
        assert list(results) == list(range(1, 100))


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_batches_are_full_but_for_the_last(count: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in batches(range(count), 4)] == sizes
