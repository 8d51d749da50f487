"""Feature maps from the graphs that ship: the maps of a pair add up to the cosine that is served."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from model.embedder import Embedder, shipped_models
from model.errors import ExplanationUnavailable
from model.explain import Explanation
from model.runtimes.feature_maps import read_tail
from tests.support.photos import car_photo

SIDES = {"efficientnet_lite0": 9, "resnet18": 6}
"""Places a side of a photo: a 32nd of its 288 or 192 pixels."""


@pytest.fixture(scope="module", params=itertools.product(shipped_models(), ["openvino", "onnx"]), ids="-".join)
def embedder(request: pytest.FixtureRequest) -> Embedder:
    """Each model that ships, in int8 and in fp32."""
    return Embedder.load(*request.param)


def explained(embedder: Embedder, query: bytes, hit: bytes) -> tuple[Explanation, float]:
    """The explanation of a pair, and the cosine of its embeddings."""
    found = embedder.explain(*(embedder.shares(embedder.prepare(photo)) for photo in (query, hit)))
    return found, float(embedder.embed_photo(query) @ embedder.embed_photo(hit))


@pytest.mark.parametrize(("one", "other"), [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((2, 0), (2, 0))])
def test_the_maps_of_a_pair_add_up_to_its_cosine(
    embedder: Embedder, one: tuple[int, int], other: tuple[int, int]
) -> None:
    found, cosine = explained(embedder, car_photo(*one), car_photo(*other))
    side = SIDES[embedder.card.name]
    assert found.query.shape == found.hit.shape == (side, side)
    assert found.constant == 0  # the whitening of both has no offset
    for heat in (found.query, found.hit):
        assert heat.sum() == pytest.approx(cosine, abs=1e-5)


def test_the_maps_of_a_photo_with_itself_are_the_same(embedder: Embedder) -> None:
    found, _ = explained(embedder, car_photo(), car_photo())
    assert np.array_equal(found.query, found.hit)
    assert found.cosine == pytest.approx(1)


def test_several_threads_get_the_maps_of_single_calls(embedder: Embedder) -> None:
    crops = [embedder.prepare(car_photo(kind)) for kind in range(4)]
    alone = [embedder.shares(crop) for crop in crops]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(embedder.shares, crops * 3))
    assert all(np.array_equal(found, wanted) for found, wanted in zip(together, alone * 3, strict=True))


def test_a_model_without_a_graph_cannot_explain(fake_embedder: Embedder) -> None:
    with pytest.raises(ExplanationUnavailable, match="it has no OpenVINO graph"):
        fake_embedder.shares(fake_embedder.prepare(car_photo()))


def test_a_graph_that_is_gone_or_damaged_cannot_explain(tmp_path: Path, shipped_embedder: Embedder) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "int8.xml").write_text("no graph")
    damaged = Embedder(shipped_embedder.directory, shipped_embedder.card, shipped_embedder.runtime)
    damaged.directory = tmp_path
    with pytest.raises(ExplanationUnavailable, match="its graph cannot be read"):
        damaged.shares(damaged.prepare(car_photo()))


@pytest.mark.torch
def test_a_model_that_was_just_exported_is_explained_too(real_embedder: Embedder) -> None:
    found, cosine = explained(real_embedder, car_photo(0), car_photo(1))
    assert (real_embedder.runtime.precision, found.query.shape) == ("fp32", (2, 2))
    assert found.cosine == pytest.approx(cosine, abs=1e-5)


def test_where_the_served_precision_has_no_graph_that_of_another_explains(shipped_embedder: Embedder) -> None:
    """As for torch in fp32 on a GPU, with a model that ships in int8."""

    class InFp32:
        def __getattr__(self, name: str) -> object:
            return "fp32" if name == "precision" else getattr(shipped_embedder.runtime, name)

    other = Embedder(shipped_embedder.directory, shipped_embedder.card, InFp32())  # type: ignore[arg-type]
    crop = other.prepare(car_photo())
    assert np.array_equal(other.shares(crop), shipped_embedder.shares(crop))


def graph_of(end: Callable[[ov.Node], ov.Node]) -> ov.Model:
    """A graph of photos (1, 3, 4, 4): `end` goes from feature maps to what is normalised."""
    photo = ops.parameter([1, 3, 4, 4], np.float32)
    vector = end(ops.relu(photo))
    return ov.Model([ops.divide(vector, ops.reduce_l2(vector, [-1], keep_dims=True))], [photo])


MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_whitening_and_its_offset_are_read_from_the_graph() -> None:
    def end(maps: ov.Node) -> ov.Node:
        pooled = ops.reduce_mean(maps, [2, 3], keep_dims=False)
        return ops.add(ops.matmul(pooled, MATRIX, False, True), np.array([[7, 8]], np.float32))

    tail = read_tail(graph_of(end))
    assert tail.maps.get_node().get_type_name() == "Relu"
    assert (tail.power, np.asarray(tail.whitening).tolist()) == (1, MATRIX.tolist())
    assert np.asarray(tail.offset).tolist() == [7, 8]


def test_a_generalised_mean_and_a_matrix_the_other_way_round_are_read_from_the_graph() -> None:
    def end(maps: ov.Node) -> ov.Node:
        cubes = ops.power(maps, np.float32(4))
        pooled = ops.power(ops.reduce_mean(cubes, [2, 3], keep_dims=False), np.float32(0.25))
        return ops.matmul(pooled, MATRIX.T.copy(), False, False)

    tail = read_tail(graph_of(end))
    assert (tail.maps.get_node().get_type_name(), tail.power, tail.offset) == ("Relu", 4, None)
    assert np.asarray(tail.whitening).tolist() == MATRIX.tolist()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda maps: ops.reduce_max(maps, [2, 3]), id="the maximum over places"),
        pytest.param(lambda maps: ops.reduce_mean(maps, [1]), id="a mean over features"),
        pytest.param(lambda maps: ops.power(ops.reduce_mean(maps, [2, 3]), np.float32(0.5)), id="a root of the mean"),
        pytest.param(
            lambda maps: ops.add(ops.reduce_mean(maps, [2, 3]), ops.reduce_mean(ops.relu(maps), [2, 3])), id="two means"
        ),
    ],
)
def test_a_graph_with_another_end_cannot_explain(end: Callable[[ov.Node], ov.Node]) -> None:
    with pytest.raises(ExplanationUnavailable, match="the end of its graph is unknown"):
        read_tail(graph_of(end))
